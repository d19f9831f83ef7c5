//! What `townhall chat` says, in English and Chinese: that of the two which the environment asks for (`LC_ALL`, `LC_MESSAGES`,
//! `LANG`). What the hall says is said in its own words, after ours.

use std::time::Duration;

use super::client::Dead;
use super::frames::Refused;
use super::trouble::Trouble;
use crate::measure::duration_text;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    Chinese,
}

impl Language {
    pub fn of_environment() -> Self {
        let set = ["LC_ALL", "LC_MESSAGES", "LANG"].iter().filter_map(|name| std::env::var(name).ok());
        Self::of_locale(&set.into_iter().find(|value| !value.is_empty()).unwrap_or_default())
    }

    fn of_locale(locale: &str) -> Self {
        if locale.starts_with("zh") { Language::Chinese } else { Language::English }
    }

    /// The one of the two that is ours.
    pub fn pick<T>(self, english: T, chinese: T) -> T {
        match self {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }
}

/// One line: why there is no connection, and what to do about it.
pub fn trouble(language: Language, trouble: &Trouble, has_token: bool) -> String {
    let say = |english: String, chinese: String| language.pick(english, chinese);
    match trouble {
        Trouble::NoSuchHost { host } => {
            say(format!("no host is called {host}; check the address"), format!("找不到主机 {host}；请检查地址"))
        }
        Trouble::Unreachable { address, error } => {
            let error = error.to_string();
            let error = plain(&error);
            say(
                format!("{address} cannot be reached ({error}); is the hall running there, on that port?"),
                format!("无法连接 {address}（{error}）；大厅在该地址和端口上运行吗？"),
            )
        }
        Trouble::Tls { host, words } => say(
            format!(
                "TLS with {host} failed ({words}); http:// if it has none, SSL_CERT_FILE for a certificate of your own"
            ),
            format!("与 {host} 的 TLS 握手失败（{words}）；若没有 TLS 请用 http://，自签证书请设 SSL_CERT_FILE"),
        ),
        Trouble::TimedOut { address } => say(
            format!("{address} does not answer; is that the hall's address?"),
            format!("{address} 没有应答；这是大厅的地址吗？"),
        ),
        Trouble::Status { address, status, words, retry_after } => {
            refused_handshake(language, address, *status, words, *retry_after)
        }
        Trouble::Elsewhere { address, to } => say(
            format!("{address} sends you to {to}; if you trust that, give it as the address"),
            format!("{address} 将你转到 {to}；若信任它，请以其为地址"),
        ),
        Trouble::NoHall { address, words } => say(
            format!("{address} is no hall ({words}); a line door's address begins with tcp://, any other with http://"),
            format!("{address} 不是大厅（{words}）；行协议的地址以 tcp:// 开头，其他以 http:// 开头"),
        ),
        Trouble::Unauthorized { words } if has_token => say(
            format!(
                "the hall does not accept this token ({words}); get a fresh one, or see --token, --token-file and --name"
            ),
            format!("大厅不接受此令牌（{words}）；请获取新的令牌，见 --token、--token-file 和 --name"),
        ),
        Trouble::Unauthorized { words } => say(
            format!("the hall lets in only those with a token ({words}); give one with --token or --token-file"),
            format!("大厅只接受持有令牌的人（{words}）；请用 --token 或 --token-file 提供"),
        ),
        Trouble::NoToken { path, error } => {
            let error = error.to_string();
            let error = plain(&error);
            say(
                format!("the token cannot be read from {path} ({error}); --token-file names a file that holds it"),
                format!("无法从 {path} 读取令牌（{error}）；--token-file 应为存放令牌的文件"),
            )
        }
        Trouble::Expired => say(
            "the token has expired; start again with a fresh one (--token-file is read again for each connection)"
                .into(),
            "令牌已过期；请用新的令牌重新开始（--token-file 每次连接时都会重读）".into(),
        ),
        Trouble::Closed { code, words } => say(
            format!("the hall closed the connection: {words} ({code})"),
            format!("大厅关闭了连接：{words}（{code}）"),
        ),
        Trouble::Refused(refused) => say(
            format!("the hall cannot let you in now: {}; try again in a moment", refused.words),
            format!("大厅现在无法让你进入：{}；请稍后再试", refused.words),
        ),
        Trouble::Broke { words } => lost(language, plain(words), plain(words)),
        Trouble::Dead(Dead::Silent) => lost(language, "no sign of life", "大厅没有动静"),
        Trouble::Dead(Dead::NoAnswer) => lost(language, "no answer", "大厅没有应答"),
        Trouble::Dead(Dead::Broken(_)) => lost(language, "what came makes no sense", "收到的数据无法理解"),
    }
}

/// The same of a trouble that may pass.
pub fn trying_again(language: Language, trouble: &Trouble, has_token: bool) -> String {
    format!("{}{}", self::trouble(language, trouble, has_token), language.pick("; trying again", "；正在重试"))
}

fn lost(language: Language, english: &str, chinese: &str) -> String {
    match language {
        _ if english.is_empty() => language.pick("the connection was lost", "连接已断开").into(),
        Language::English => format!("the connection was lost ({english})"),
        Language::Chinese => format!("连接已断开（{chinese}）"),
    }
}

fn refused_handshake(language: Language, address: &str, status: u16, words: &str, again: Option<Duration>) -> String {
    let (in_english, in_chinese) = match again {
        Some(wait) => (format!("try again in {}", duration_text(wait)), format!("请在 {} 后重试", duration_text(wait))),
        None => ("try again later".into(), "请稍后再试".into()),
    };
    let (english, chinese) = match status {
        429 | 503 => (
            format!("the hall takes nobody in just now: {words}; {in_english}, or wait for it with --retry-for 5m"),
            format!("大厅暂时不接受新连接：{words}；{in_chinese}，或用 --retry-for 5m 等待"),
        ),
        400 | 403 => {
            (format!("the hall does not let you in like that: {words}"), format!("大厅拒绝了这样的请求：{words}"))
        }
        404 => (
            format!("there is no hall at {address}; check what follows the host in the address"),
            format!("{address} 没有大厅；请检查地址中主机之后的部分"),
        ),
        426 => (
            format!("something on the way to {address} passes no WebSockets on: {words}"),
            format!("通往 {address} 的途中有代理不转发 WebSocket：{words}"),
        ),
        _ => (
            format!("{address} answers with HTTP {status} {words}; is that the hall's address?"),
            format!("{address} 返回 HTTP {status} {words}；这是大厅的地址吗？"),
        ),
    };
    language.pick(english, chinese)
}

/// Of a line that was sent, when nobody will tell what came of it.
pub fn in_doubt(language: Language, line: u64) -> String {
    language.pick(format!("line {line} may not have been said"), format!("第 {line} 行可能没有发出"))
}

/// Of an input or output that failed, and how far it came.
pub fn broken_off(language: Language, error: &std::io::Error, accepted: u64) -> String {
    let error = error.to_string();
    let error = plain(&error);
    language
        .pick(format!("{error}; lines accepted before that: {accepted}"), format!("{error}；此前已接受 {accepted} 行"))
}

/// Of a message that nothing more is done about.
pub fn unsaid(language: Language, in_doubt: bool) -> &'static str {
    match in_doubt {
        false => language.pick("not sent", "未发送"),
        true => language.pick("this may not have been said", "这条可能没有发出"),
    }
}

pub fn stuck(language: Language) -> &'static str {
    language.pick("the hall can store nothing just now; waiting", "大厅暂时无法存储任何内容；正在等待")
}

/// Why something was not said or done, by its code; else in the hall's words.
pub fn refused(language: Language, why: &Refused) -> String {
    let (english, chinese) = match why.code.as_str() {
        "muted" => ("you may read here, and not speak", "你在此可读，不可发言"),
        "forbidden" => ("that room is not open to you; try another", "该房间不对你开放；请换一个"),
        "bad_room" => (
            "a room is 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit",
            "房间名为 1 至 64 个 a-z 0-9 . _ -，以字母或数字开头",
        ),
        "too_many_rooms" => ("you are in too many rooms; /leave one first", "你进入的房间太多；请先 /leave 一个"),
        "expired" => ("it waited too long to be sent again safely", "等待太久，无法安全重发"),
        "left" => ("you left the room", "你已离开该房间"),
        "not_joined" => ("you are not in that room; /join it first", "你不在该房间；请先 /join"),
        "other_user" => ("it was said by somebody else, who is no longer here", "这是另一位用户说的，其已不在"),
        "lost" => ("the line broke", "连接中断"),
        "unavailable" => ("the hall cannot do that just now; try again", "大厅暂时无法处理；请重试"),
        _ => return format!("{} ({})", why.words, why.code),
    };
    language.pick(english, chinese).into()
}

/// Without the number that only programmers read.
fn plain(words: &str) -> &str {
    words.split(" (os error").next().unwrap_or(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_decides_the_language() {
        for locale in ["zh_CN.UTF-8", "zh_TW", "zh"] {
            assert_eq!(Language::of_locale(locale), Language::Chinese, "{locale}");
        }
        for locale in ["", "C.UTF-8", "en_US.UTF-8", "de_DE"] {
            assert_eq!(Language::of_locale(locale), Language::English, "{locale}");
        }
    }

    #[test]
    fn every_trouble_is_one_line_in_either_language() {
        let error = || std::io::Error::from_raw_os_error(111);
        let text = String::from("words");
        let status =
            |status| Trouble::Status { address: "ws://h/ws".into(), status, words: "words".into(), retry_after: None };
        let troubles = [
            Trouble::NoSuchHost { host: text.clone() },
            Trouble::Unreachable { address: text.clone(), error: error() },
            Trouble::Tls { host: text.clone(), words: text.clone() },
            Trouble::TimedOut { address: text.clone() },
            status(400),
            status(404),
            status(426),
            status(429),
            status(500),
            Trouble::Elsewhere { address: text.clone(), to: text.clone() },
            Trouble::NoHall { address: text.clone(), words: text.clone() },
            Trouble::Unauthorized { words: text.clone() },
            Trouble::NoToken { path: text.clone(), error: error() },
            Trouble::Expired,
            Trouble::Closed { code: 4003, words: text.clone() },
            Trouble::Refused(Refused { code: text.clone(), words: text.clone() }),
            Trouble::Broke { words: "gone (os error 104)".into() },
            Trouble::Broke { words: String::new() },
            Trouble::Dead(Dead::Silent),
            Trouble::Dead(Dead::NoAnswer),
        ];
        for case in &troubles {
            let english = trouble(Language::English, case, false);
            let chinese = trouble(Language::Chinese, case, false);
            assert!(english.is_ascii() && !english.contains("os error") && !english.contains('\n'), "{english}");
            assert!(!chinese.is_ascii() && !chinese.contains("os error") && !chinese.contains('\n'), "{chinese}");
        }
    }
}
