//! Two who talk with each other while somebody else misbehaves: nobody may disturb them.

use std::net::SocketAddr;

use super::{Json, Line};

pub struct Bystanders {
    ada: Json,
    nc: Line,
    said: usize,
}

impl Bystanders {
    /// One by the JSON door and one by the line door, both in the lobby.
    pub async fn meet(ws_url: &str, lines: SocketAddr) -> Bystanders {
        let mut ada = Json::connect(ws_url, "?name=ada").await;
        ada.join("lobby").await;
        let mut nc = Line::connect(lines).await;
        nc.say("/name nc").await;
        nc.say("here").await;
        nc.until("nc:here").await;
        Bystanders { ada, nc, said: 0 }
    }

    /// Each says something that the other hears.
    pub async fn talk(&mut self) {
        self.said += 1;
        self.ada.said("lobby", &format!("question {}", self.said)).await;
        self.nc.until(&format!("ada:question {}", self.said)).await;
        self.nc.say(&format!("answer {}", self.said)).await;
        self.ada.hear("lobby", &format!("answer {}", self.said)).await;
    }

    /// What everybody in the lobby has heard, as JSON clients see it.
    pub fn texts(&self) -> Vec<String> {
        self.ada.texts("lobby")
    }

    /// Reads on until the one at the line door hears this; the lines before.
    pub async fn until_line(&mut self, line: &str) -> Vec<String> {
        self.nc.until(line).await
    }

    /// Reads on until the JSON client hears this text.
    pub async fn until_text(&mut self, text: &str) -> serde_json::Value {
        self.ada.hear("lobby", text).await
    }
}
