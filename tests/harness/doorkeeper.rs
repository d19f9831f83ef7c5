//! Something before a hall that turns some away, as a proxy may that is set up anew.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// `turns_away` is asked with the number of the connection, from 0, and what it began with: the status and words that it is to
/// be answered with, and that it may come back in an hour, or `None` to let it through.
pub async fn doorkeeper(
    hall: SocketAddr,
    turns_away: impl Fn(usize, &str) -> Option<(u16, &'static str)> + Copy + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((client, _)) = listener.accept().await else { return };
            tokio::spawn(keep(client, hall, move |asked: &str| turns_away(number, asked)));
        }
    });
    address
}

async fn keep(
    mut client: TcpStream,
    hall: SocketAddr,
    turns_away: impl Fn(&str) -> Option<(u16, &'static str)>,
) -> std::io::Result<()> {
    let mut asked = [0; 4096];
    let read = client.read(&mut asked).await?;
    if let Some((status, words)) = turns_away(&String::from_utf8_lossy(&asked[..read])) {
        let length = words.len();
        let answer = format!("HTTP/1.1 {status} No\r\nRetry-After: 3600\r\nContent-Length: {length}\r\n\r\n{words}");
        return client.write_all(answer.as_bytes()).await;
    }
    let mut hall = TcpStream::connect(hall).await?;
    hall.write_all(&asked[..read]).await?;
    copy_bidirectional(&mut client, &mut hall).await.map(drop)
}
