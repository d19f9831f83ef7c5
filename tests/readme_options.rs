//! The documents' tables of options are those that the command line makes of itself.

use townhall::cli::options_table;

const BEGIN: &str = "<!-- options -->\n";
const END: &str = "<!-- /options -->";

fn assert_lists(name: &str, document: &str, command: &str) {
    let (_, rest) = document.split_once(BEGIN).unwrap_or_else(|| panic!("{name} has no <!-- options -->"));
    let (written, _) = rest.split_once(END).unwrap_or_else(|| panic!("{name} has no <!-- /options -->"));
    let table = options_table(command);
    assert!(
        written.trim() == table.trim(),
        "{name}'s options differ from the command line's. Between its two markers belongs:\n\n{table}"
    );
}

#[test]
fn the_readme_lists_the_options_as_they_are() {
    assert_lists("README.md", include_str!("../README.md"), "serve");
}

#[test]
fn the_manual_of_the_terminal_client_lists_its_options_as_they_are() {
    assert_lists("docs/chat.md", include_str!("../docs/chat.md"), "chat");
}
