//! Parse, raise limits, log, serve, and say in one line what went wrong: exit code 2 for a command line that is refused, 1 for
//! everything after it. `townhall chat` has more of them; see its help.

use std::process::ExitCode;

use tokio::runtime;
use townhall::cli::{self, ChatArgs, Command, HealthArgs, ServeArgs, TokenArgs};
use townhall::config::{self, Config};
use townhall::{auth, chat, health, logging, server};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Serve(args)) => serve(*args),
        Ok(Command::Chat(args)) => chat(*args),
        Ok(Command::Token(args)) => token(*args),
        Ok(Command::Health(args)) => health(args),
        Err(ending) => ending.tell(),
    }
}

fn serve(args: ServeArgs) -> ExitCode {
    let nofile = config::raise_nofile();
    let config = args.into_config(nofile);
    let config = match config.and_then(|config| logging::start().map(|()| config)) {
        Ok(config) => config,
        Err(refusal) => return cli::Ending::from(refusal).tell(),
    };
    match auth::check_settings(&config.auth) {
        Ok(()) => outcome(run(config, nofile)),
        Err(words) => cli::Ending::Refused(words).tell(),
    }
}

fn run(config: Config, nofile: u64) -> anyhow::Result<()> {
    let connections = config.limits.connections;
    tracing::info!(nofile, connections, "files and connections at the same time");
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { server::run(config, server::Shutdown::on_signals()?).await })
}

fn chat(args: ChatArgs) -> ExitCode {
    match args.into_plan() {
        Ok(plan) => chat::run(plan).unwrap_or_else(|error| outcome(Err(error.into()))),
        Err(refusal) => cli::Ending::from(refusal).tell(),
    }
}

fn token(args: TokenArgs) -> ExitCode {
    let order = match args.into_order() {
        Ok(order) => order,
        Err(refusal) => return cli::Ending::from(refusal).tell(),
    };
    let minted = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(order.mint()).map_err(anyhow::Error::msg));
    outcome(minted.map(|token| {
        println!("{token}");
        if logging::on_terminal() {
            eprintln!("{order}");
        }
    }))
}

fn health(args: HealthArgs) -> ExitCode {
    let asked = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(health::ask(args.ops, args.ready)).map_err(anyhow::Error::msg));
    outcome(asked.map(|line| println!("{line}")))
}

fn outcome(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("{error:#}").replace(['\n', '\r'], " ");
            eprintln!("townhall: {line}");
            ExitCode::FAILURE
        }
    }
}
