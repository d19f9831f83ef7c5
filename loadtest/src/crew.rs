//! The workers of a run, as whoever leads it sees them: started, told, listened to, and gathered in at the end.

use std::io::BufReader;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::latency::Recorded;
use crate::machine::LoadMeter;
use crate::pipe;
use crate::plan::{Plan, Share};
use crate::standing::Standing;
use crate::worker::{Part, Phase, Word};

/// How long workers may take to start, and to hand over what is left of their clients.
const PATIENCE: Duration = Duration::from_secs(60);

/// The hidden command by which this program starts itself as a worker.
pub const WORKER: &str = "worker";

struct Hand {
    name: String,
    process: Child,
    orders: ChildStdin,
    is_ready: bool,
    standing: Standing,
    part: Option<Box<Part>>,
}

pub struct Crew {
    hands: Vec<Hand>,
    /// What they say, by their place among the hands; `None`: that one has ended.
    words: mpsc::UnboundedReceiver<(usize, Option<Word>)>,
}

impl Crew {
    /// Starts a process for each share, and waits until all of them know the plan.
    pub async fn start(plan: &Plan, shares: Vec<Share>) -> anyhow::Result<Self> {
        let (sender, words) = mpsc::unbounded_channel();
        let mut crew = Crew { hands: Vec::new(), words };
        for share in shares {
            let hand = Hand::start(plan, &share, crew.hands.len(), sender.clone())?;
            crew.hands.push(hand);
        }
        let deadline = Instant::now() + PATIENCE;
        while !crew.hands.iter().all(|hand| hand.is_ready) {
            crew.hear_one(deadline, &mut |_, _| {}).await?;
        }
        Ok(crew)
    }

    pub fn order(&mut self, phase: Phase) {
        for hand in &mut self.hands {
            // One that has ended is noticed by its end.
            let _ = pipe::write(&mut hand.orders, &phase);
        }
    }

    /// Listens for so long. `seconds` is told what a worker's clients had delivered in a second.
    ///
    /// # Errors
    /// A worker has failed, or ended early.
    pub async fn listen(&mut self, time: Duration, seconds: &mut impl FnMut(u64, Recorded)) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            match timeout_at(until, self.words.recv()).await {
                Ok(word) => self.note(word, seconds)?,
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn hear_one(&mut self, deadline: Instant, seconds: &mut impl FnMut(u64, Recorded)) -> anyhow::Result<()> {
        let word = timeout_at(deadline, self.words.recv()).await.map_err(|_| anyhow!("a worker says nothing"))?;
        self.note(word, seconds)
    }

    fn note(
        &mut self,
        word: Option<(usize, Option<Word>)>,
        seconds: &mut impl FnMut(u64, Recorded),
    ) -> anyhow::Result<()> {
        let (number, word) = word.ok_or_else(|| anyhow!("all workers ended early"))?;
        let hand = &mut self.hands[number];
        match word {
            Some(Word::Ready) => hand.is_ready = true,
            Some(Word::Standing(standing)) => hand.standing = standing,
            Some(Word::Second(second, recorded)) => seconds(second, recorded),
            Some(Word::Done(part)) => hand.part = Some(part),
            Some(Word::Failed(why)) => bail!("{}: {why}", hand.name),
            None if hand.part.is_some() => {}
            None => bail!("{} ended early", hand.name),
        }
        Ok(())
    }

    /// Where all clients stand.
    pub fn standing(&self) -> Standing {
        let mut all = Standing::default();
        for hand in &self.hands {
            all.add(&hand.standing);
        }
        all
    }

    /// Whether all have said where their clients stand in each room.
    pub fn tells_by_room(&self) -> bool {
        self.hands.iter().all(|hand| hand.standing.by_room)
    }

    /// What measures what the workers, and this process, take of the processors.
    pub fn meter(&self) -> LoadMeter {
        let workers = self.hands.iter().map(|hand| (hand.process.id(), hand.name.clone()));
        LoadMeter::of(workers.chain([(std::process::id(), "leader".to_owned())]).collect())
    }

    /// The run is over: what is left of all clients.
    pub async fn dismiss(mut self, until: Duration) -> anyhow::Result<Vec<Part>> {
        self.order(Phase::Over(until));
        let deadline = Instant::now() + PATIENCE;
        while !self.hands.iter().all(|hand| hand.part.is_some()) {
            self.hear_one(deadline, &mut |_, _| {}).await?;
        }
        Ok(self.hands.iter_mut().filter_map(|hand| hand.part.take()).map(|part| *part).collect())
    }
}

impl Drop for Crew {
    /// None outlives the run, whatever became of it.
    fn drop(&mut self) {
        for hand in &mut self.hands {
            let _ = hand.process.kill();
            let _ = hand.process.wait();
        }
    }
}

impl Hand {
    fn start(
        plan: &Plan,
        share: &Share,
        number: usize,
        words: mpsc::UnboundedSender<(usize, Option<Word>)>,
    ) -> anyhow::Result<Self> {
        let name = match share {
            Share::Readers { first, .. } => format!("worker-{first}"),
            Share::Listeners { first, .. } => format!("crowd-{first}"),
        };
        let program = std::env::current_exe().context("where this program is")?;
        let mut process = Command::new(program)
            .arg(WORKER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0) // Ctrl-C, and Ctrl-Z, are for whoever leads the run
            .spawn()
            .context("cannot start a worker")?;
        let (Some(mut orders), Some(said)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("a worker without pipes");
        };
        pipe::write(&mut orders, &(plan, share)).context("cannot tell a worker the plan")?;
        thread::Builder::new().name(name.clone()).spawn(move || {
            let mut said = BufReader::new(said);
            while let Ok(Some(word)) = pipe::read(&mut said) {
                if words.send((number, Some(word))).is_err() {
                    return;
                }
            }
            let _ = words.send((number, None)); // nobody listens any more
        })?;
        Ok(Hand { name, process, orders, is_ready: false, standing: Standing::default(), part: None })
    }
}
