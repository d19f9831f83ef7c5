//! Every scenario as it is run, against a real hall. What takes how long is not judged here.

mod hall;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use hall::{LOAD, Server, free, load, number, passes, result};

#[test]
fn every_member_of_every_room_is_judged() {
    let hall = Server::hall(&[]);
    let options = ["--rooms", "20", "--members", "5", "--messages", "200", "--rate", "200"];
    let result = passes(&[&["rooms", &hall.ws()], &options[..]].concat());
    assert_eq!([number(&result, "rooms"), number(&result, "connected")], [20, 100]);
    assert_eq!([number(&result, "accepted"), number(&result, "deliveries")], [200, 1000], "{result}");
}

#[test]
fn clients_come_in_by_the_clock_or_as_fast_as_they_are_let_in() {
    let hall = Server::hall(&[]);
    for pace in ["400", "0"] {
        let options = ["--connections", "200", "--connect-rate", pace, "--watch", &hall.pid()];
        let result = passes(&[&["connect", &hall.ws()], &options[..]].concat());
        assert_eq!([number(&result, "connected"), number(&result, "deliveries")], [200, 0]);
        assert_eq!(result["connect_ms"]["count"], 200, "{result}");
        assert!(result["connects_per_s"].as_f64() > Some(0.0) && result["watched_entry_cpu_s"].is_number(), "{result}");
    }
}

#[test]
fn a_hall_that_is_full_does_not_pass() {
    let hall = Server::hall(&["--max-connections", "50"]);
    let output =
        load(&["connect", &hall.ws(), "--connections", "60", "--connect-rate", "0", "--window", "4", "--stay", "1s"]);
    let result = result(&output);
    assert_eq!(output.status.code(), Some(1), "{result}");
    let reasons = ["10 clients never got into the room", "10 clients were away at the end"];
    assert_eq!(result["reasons"], serde_json::json!(reasons), "{result}");
    assert!(result["ends"]["HTTP 503"].as_u64() > Some(0), "{result}");
}

#[test]
fn who_is_cut_comes_back_and_has_everything() {
    let hall = Server::hall(&[]);
    let options = ["--connections", "100", "--seconds", "3", "--cut-after", "1s", "--rate", "50"];
    let result = passes(&[&["storm", &hall.ws()], &options[..]].concat());
    assert_eq!([number(&result, "resumes"), number(&result, "deliveries")], [100, 15_000], "{result}");
    assert_eq!((&result["back_ms"]["count"], result["all_back_s"].is_number()), (&100.into(), true), "{result}");
}

#[test]
fn when_a_node_is_killed_its_clients_resume_at_the_other_one() {
    let redis = Server::redis();
    let url = format!("--redis=redis://{}", redis.address);
    let [first, second] = [0, 1].map(|_| Server::hall(&[&url]));
    let kill = format!("kill -9 {}", first.pid());
    let options = ["--connections", "200", "--seconds", "4", "--cut-after", "1s", "--rate", "50", "--instead", &kill];
    let result = passes(&[&["storm", &first.ws(), "--spare", &second.ws()], &options[..]].concat());
    assert_eq!([number(&result, "resumes"), number(&result, "deliveries"), number(&result, "lost")], [200, 40_000, 0]);
    assert!(result["all_back_s"].is_number(), "{result}");
}

#[test]
fn a_storm_whose_command_fails_and_that_cuts_nobody_does_not_pass() {
    let hall = Server::hall(&[]);
    let options =
        ["--connections", "5", "--publishers", "1", "--seconds", "2", "--cut-after", "1s", "--instead", "exit 3"];
    let output = load(&[&["storm", &hall.ws()], &options[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let reasons = ["the command of --instead failed: exit status: 3", "no line was cut"];
    assert_eq!(result(&output)["reasons"], serde_json::json!(reasons));
}

#[test]
fn who_leaves_comes_back_and_has_everything() {
    let hall = Server::hall(&[]);
    let options = ["--connections", "50", "--seconds", "3", "--leave-rate", "30", "--away", "200ms", "--rate", "50"];
    let result = passes(&[&["churn", &hall.ws()], &options[..]].concat());
    assert_eq!([number(&result, "deliveries"), number(&result, "away")], [150 * 50, 0], "{result}");
    let left = result["ends"]["left, as planned"].as_u64().unwrap();
    assert!(left >= 50 && number(&result, "resumes") == left, "{result}");
}

#[test]
fn a_soak_tells_memory_and_draws_a_page() {
    let hall = Server::hall(&[]);
    let page = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak.html");
    let options = ["--connections", "50", "--seconds", "5", "--watch", &hall.pid(), "--html", page.to_str().unwrap()];
    let result = passes(&[&["soak", &hall.ws()], &options[..]].concat());
    assert!(result["watched_growth"].is_number(), "{result}");
    let moments = result["timeline"].as_array().unwrap();
    assert!(moments.len() >= 5 && moments.iter().any(|moment| moment["watched_mib"].is_number()), "{result}");
    let page = std::fs::read_to_string(page).unwrap();
    for there in ["townhall-load soak", "due → delivered", "the server's memory", "--seconds 5"] {
        assert!(page.contains(there), "{there}");
    }
}

#[test]
fn rooms_of_all_sizes_at_every_door_are_judged() {
    let lines = free().to_string();
    let hall = Server::hall(&["--tcp", &lines]);
    let (plain, tcp) = (format!("plain+{}", hall.ws()), format!("tcp://{lines}"));
    let options = ["--connections", "60", "--seconds", "3", "--leave-rate", "10", "--away", "300ms"];
    let result = passes(&[&["mixed", &hall.ws(), &plain, &tcp], &options[..]].concat());
    assert_eq!([number(&result, "connected"), number(&result, "rooms")], [60, 5], "{result}");
    assert!(number(&result, "accepted") == 300 && number(&result, "told") > 0, "{result}");
}

/// A shell that may open few files: one process could not hold them all.
#[test]
fn more_clients_than_a_process_has_files_for_come_in_more_processes() {
    let hall = Server::hall(&[]);
    let run = format!("ulimit -n 128; exec {LOAD} fanout {} -c 200 -l 200 -m 20 --json --quiet --workers 1", hall.ws());
    let output = Command::new("sh").args(["-c", &run]).output().unwrap();
    let result = result(&output);
    assert_eq!((&result["pass"], &result["deliveries"]), (&true.into(), &8000.into()), "{result}");
    assert_eq!(number(&result["environment"], "workers"), 8, "{result}");
    assert_eq!(result["delivered_ms"]["count"], 4000, "what all processes measured is merged");
}

#[test]
fn who_has_nowhere_to_come_back_to_fails_a_storm() {
    let hall = Server::hall(&[]);
    let kill = format!("kill -9 {}", hall.pid());
    let options =
        ["--connections", "5", "--publishers", "1", "--seconds", "2", "--cut-after", "1s", "--instead", &kill];
    let output = load(&[&["storm", &hall.ws(), "--settle", "1s"], &options[..]].concat());
    let result = result(&output);
    assert_eq!(output.status.code(), Some(1));
    let reasons: Vec<&str> =
        result["reasons"].as_array().unwrap().iter().filter_map(|reason| reason.as_str()).collect();
    assert!(reasons.contains(&"5 clients were away at the end"), "{reasons:?}");
    assert!(result["all_back_s"].is_null(), "{result}");
}

/// A minute's run that has begun.
fn a_long_run(hall: &Server) -> Child {
    let mut load = Command::new(LOAD);
    load.args(["fanout", &hall.ws(), "-c", "20", "-s", "60", "--json"]).process_group(0);
    let mut load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut progress = BufReader::new(load.stderr.as_mut().unwrap()).lines();
    let says = progress.find(|line| line.as_ref().is_ok_and(|line| line.contains(" delivered")));
    assert!(says.is_some(), "it ended early");
    load
}

fn workers_of(load: &Child) -> Vec<String> {
    let children = format!("/proc/{0}/task/{0}/children", load.id());
    std::fs::read_to_string(children).unwrap().split_whitespace().map(str::to_owned).collect()
}

fn are_gone(workers: &[String]) -> bool {
    let is_there = |pid: &String| Path::new("/proc").join(pid).exists();
    (0..500).any(|_| {
        thread::sleep(Duration::from_millis(20));
        !workers.iter().any(is_there)
    })
}

/// Ctrl-C, which a terminal sends to all processes of the command.
#[test]
fn an_interrupted_run_is_judged() {
    let hall = Server::hall(&[]);
    let load = a_long_run(&hall);
    let workers = workers_of(&load);
    assert!(Command::new("kill").args(["-INT", "--", &format!("-{}", load.id())]).status().unwrap().success());
    let output = load.wait_with_output().unwrap();
    let result = result(&output);
    assert_eq!((output.status.code(), &result["pass"]), (Some(0), &true.into()), "{result}");
    assert!(number(&result, "deliveries") > 0 && are_gone(&workers), "{result}");
    assert_eq!(result["interrupted"], true, "{result}");
}

#[test]
fn it_is_not_to_be_stopped_but_ended() {
    let hall = Server::hall(&[]);
    let mut load = a_long_run(&hall);
    let signal = |name: &str| Command::new("kill").args([name, &load.id().to_string()]).status().unwrap();
    assert!(signal("-TSTP").success());
    let stat = format!("/proc/{}/stat", load.id());
    thread::sleep(Duration::from_millis(300));
    let state = std::fs::read_to_string(stat).unwrap().rsplit(") ").next().unwrap().chars().next();
    assert_ne!(state, Some('T'), "it measures time");
    assert!(signal("-TERM").success());
    let mut said = String::new();
    load.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("a run goes on"), "{said}");
    let output = load.wait_with_output().unwrap();
    let result = result(&output);
    assert_eq!((&result["pass"], &result["interrupted"]), (&true.into(), &true.into()), "{result}");
}

#[test]
fn workers_do_not_outlive_whoever_leads_them() {
    let hall = Server::hall(&[]);
    let mut load = a_long_run(&hall);
    let workers = workers_of(&load);
    assert!(!workers.is_empty());
    load.kill().unwrap();
    load.wait().unwrap();
    assert!(are_gone(&workers), "{workers:?}");
}

#[test]
fn clients_come_from_the_addresses_that_were_given() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let seen = thread::spawn(move || {
        let addresses = (0..4).map(|_| listener.accept().unwrap().1.ip());
        addresses.collect::<BTreeSet<IpAddr>>()
    });
    let output = load(&["fanout", &url, "-c", "4", "-p", "1", "--source", "127.0.0.7,127.0.0.8"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = ["127.0.0.7", "127.0.0.8"].map(|address| address.parse().unwrap());
    assert_eq!(seen.join().unwrap(), BTreeSet::from(expected));
}

/// What would be said elsewhere is not said at all.
#[test]
fn a_room_that_is_refused_at_the_line_door_is_no_other_room() {
    let lines = free().to_string();
    let _hall = Server::hall(&["--tcp", &lines, "--rooms", "staff,help"]);
    let output = load(&["fanout", &format!("tcp://{lines}"), "-c", "4", "-p", "1", "-m", "5"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("forbidden"), "{words}");
}

#[test]
fn a_page_is_there_whole_or_as_it_was() {
    let hall = Server::hall(&[]);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let page = directory.join(format!("kept-{}.html", std::process::id()));
    std::fs::write(&page, "the last one").unwrap();
    let options = ["-c", "4", "-m", "5", "--html", page.to_str().unwrap()];
    let refused = load(&[&["fanout", &hall.ws(), "--size", "1"], &options[..]].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&page).unwrap(), "the last one");
    passes(&[&["fanout", &hall.ws()], &options[..]].concat());
    assert!(std::fs::read_to_string(&page).unwrap().contains("townhall-load fanout"));
    let nowhere = load(&["fanout", &hall.ws(), "--html", "/no/such/directory/page.html"]);
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("--html /no/such/directory/page.html"));
    std::fs::remove_file(page).unwrap();
}

/// A server that accepts and says nothing.
#[test]
fn a_server_that_says_nothing_is_not_waited_for_by_listeners() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let output = load(&["fanout", &url, "-c", "1", "-l", "2", "-m", "1"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("no answer to the handshake"), "{words}");
}

#[test]
fn with_tls_certificates_are_looked_at() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let hall = Server::hall(&[]);
    let nginx = nginx_with_tls(&directory, &hall);
    let url = format!("wss://{}", nginx.address);
    let run = |trusted: &str| {
        let mut load = Command::new(LOAD);
        load.args(["fanout", &url, "-c", "20", "-p", "2", "-m", "20", "--json", "--quiet"]);
        load.env("SSL_CERT_FILE", directory.join(trusted)).output().unwrap()
    };
    let known = run("ours.pem");
    assert_eq!(result(&known)["deliveries"], 400);
    let unknown = run("others.pem");
    assert_eq!(unknown.status.code(), Some(2));
    let words = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(words.contains("nobody got into the room") && words.contains("certificate"), "{words}");
    let _ = std::fs::remove_dir_all(directory);
}

/// nginx at `127.0.0.1` with the certificate `ours.pem`; beside it, `others.pem` is one that it has not.
fn nginx_with_tls(directory: &Path, hall: &Server) -> Server {
    for name in ["ours", "others"] {
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-nodes",
            "-days",
            "2",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ]);
        openssl.args([
            "-subj",
            "/CN=load",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=CA:FALSE",
        ]);
        openssl.arg("-keyout").arg(directory.join(name).with_extension("key"));
        openssl.arg("-out").arg(directory.join(name).with_extension("pem"));
        let made = openssl.output().expect("openssl is missing: run tests/setup");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let address = free();
    let (path, hall) = (directory.display(), hall.address);
    let conf = format!(
        "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;\nevents {{}}\nhttp {{ access_log off;\n\
         client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c; uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;\n\
         server {{ listen {address} ssl; ssl_certificate {path}/ours.pem; ssl_certificate_key {path}/ours.key;\n\
         location / {{ proxy_pass http://{hall}; proxy_http_version 1.1; proxy_set_header Host $http_host;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }} }}\n"
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, conf).unwrap();
    let mut nginx = Command::new("nginx");
    nginx.arg("-c").arg(&file).arg("-p").arg(directory).arg("-e").arg(directory.join("error.log"));
    Server::start(nginx, address)
}
