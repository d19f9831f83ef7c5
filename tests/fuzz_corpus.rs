//! What `fuzz/` checks, on a stable compiler: the committed inputs of each target, among them whatever the fuzzers found,
//! and bytes of chance.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[path = "../fuzz/checks/lib.rs"]
mod checks;

/// The inputs of a target, in the order of their names.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = files
        .map(|file| file.expect("a folder that can be read").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a file that can be read")))
        .collect();
    seeds.sort();
    seeds
}

fn check_seeds(target: &str, check: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(seeds.len() >= 3, "{target} has {} seeds", seeds.len());
    for (path, data) in seeds {
        // A panic in a check does not know the file.
        println!("{path}");
        check(&data);
    }
}

/// Bytes of chance, or a seed of which some bytes were changed: those get further.
fn inputs(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<Vec<u8>> = seeds(target).into_iter().map(|(_, data)| data).collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20);
    let changed = (prop::sample::select(seeds), changes).prop_map(|(mut data, changes)| {
        for (index, byte) in changes {
            if !data.is_empty() {
                let index = index.index(data.len());
                data[index] = byte;
            }
        }
        data
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..1500), changed]
}

/// Two tests for each target.
macro_rules! targets {
    ($($target:ident: $seeds:ident, $chance:ident;)*) => {
        $(
            #[test]
            fn $seeds() {
                check_seeds(stringify!($target), checks::$target::check);
            }
        )*
        proptest! {
            $(
                #[test]
                fn $chance(data in inputs(stringify!($target))) {
                    checks::$target::check(&data);
                }
            )*
        }
    };
}

targets! {
    frames: frames_are_read_as_the_rfc_has_them, any_bytes_are_frames_or_refused_however_they_are_cut;
    commands: commands_are_accepted_or_refused_in_so_many_words, any_command_has_an_answer_of_bounded_length;
    lines: lines_are_found_wherever_they_are_cut, any_line_is_heard_under_the_name_of_who_said_it;
    payloads: a_hostile_redis_breaks_nothing, any_answer_of_redis_leaves_rooms_dense;
    tokens: a_token_lets_in_only_what_its_key_has_signed, any_token_is_refused_or_signed;
    log: the_log_is_what_a_list_of_records_would_be, any_history_of_a_log_gives_its_readers_whole_records_in_order;
}
