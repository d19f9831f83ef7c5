//! README's table of options is the one that the command line makes of itself.

use townhall::cli::options_table;

const BEGIN: &str = "<!-- options -->\n";
const END: &str = "<!-- /options -->";

#[test]
fn the_readme_lists_the_options_as_they_are() {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once(BEGIN).expect("README.md has <!-- options -->");
    let (written, _) = rest.split_once(END).expect("README.md has <!-- /options -->");
    let table = options_table();
    assert!(
        written.trim() == table.trim(),
        "README.md's options differ from the command line's. Between its two markers belongs:\n\n{table}"
    );
}
