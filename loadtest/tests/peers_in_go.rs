//! The servers that a hall is compared with and that are written in Go, which `make test-all` needs and `make test` does not.

mod peer;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use peer::{Server, go, load, one_node_delivers, passed, two_nodes_deliver};

/// Two tests need it, and a program that runs must not be built anew.
static CENTRIFUGE: LazyLock<PathBuf> = LazyLock::new(|| go("centrifuge-server"));

#[test]
fn the_tutorials_broadcaster_delivers_what_is_said() {
    let program = go("gin-gorilla");
    one_node_delivers(&program, &[]);
    two_nodes_deliver(&program, &[]);
}

#[test]
fn the_hub_of_gorillas_example_delivers_what_is_said() {
    let program = go("gorilla-hub");
    one_node_delivers(&program, &["--lines"]);
    two_nodes_deliver(&program, &["--lines"]);
}

#[test]
fn centrifuge_delivers_what_is_said() {
    one_node_delivers(&CENTRIFUGE, &["--dialect", "centrifuge"]);
    two_nodes_deliver(&CENTRIFUGE, &["--dialect", "centrifuge"]);
}

/// How many connections a port of this machine has.
fn connected(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let local = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(1).is_some_and(|place| place.ends_with(&local)) && row.get(3) == Some(&ESTABLISHED))
        .count()
}

/// Its clients take up at the other node what they missed, and what was said twice is stored once.
#[test]
fn centrifuge_resumes_when_a_node_dies() {
    let redis = Server::redis();
    let url = format!("redis://{}", redis.address);
    let mut nodes = Vec::from([0, 1].map(|_| Server::peer(&CENTRIFUGE, &["--redis", &url])));
    let options = ["--connections", "10", "--publishers", "5", "--rate", "200", "--seconds", "3"];
    let load = load(&nodes, &[&options[..], &["--dialect", "centrifuge"]].concat());
    let five_are_in = || connected(nodes[1].address.port()) == 5;
    while !five_are_in() {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(1500)); // in the middle of what is said
    nodes.pop();
    let result = passed(load);
    assert_eq!((&result["resumes"], &result["deliveries"]), (&5.into(), &(600 * 10).into()), "{result}");
}
