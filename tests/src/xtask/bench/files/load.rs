//! Load for a server: connections that ask for one page again and again. It must not know who watches.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

/// More than Node answers at once, so that it is never idle.
const CONNECTIONS: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Answers a second of all connections.
pub(super) fn requests_a_second(port: u16, page: &str, duration: Duration) -> Result<f64> {
    let begin = Instant::now();
    let end = begin + duration;
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let request = format!("GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            std::thread::spawn(move || ask_until(port, &request, end))
        })
        .collect();
    let mut answers = 0;
    for connection in connections {
        answers += connection.join().map_err(|_| anyhow!("a connection's thread panicked"))??;
    }
    Ok(f64::from(answers) / begin.elapsed().as_secs_f64())
}

fn ask_until(port: u16, request: &str, end: Instant) -> Result<u32> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("nobody listens")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut answer = BufReader::new(stream.try_clone()?);
    let mut answers = 0;
    while Instant::now() < end {
        stream.write_all(request.as_bytes())?;
        skip_answer(&mut answer)?;
        answers += 1;
    }
    Ok(answers)
}

// RFC 9112: a status line, header fields, an empty line, the body.
fn skip_answer(answer: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    answer.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200"), "the server says {line:?}");
    let mut length = None;
    loop {
        line.clear();
        answer.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse()?);
        }
    }
    let length: u64 = length.context("an answer without a length")?;
    std::io::copy(&mut answer.by_ref().take(length), &mut std::io::sink())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_to_their_ends() {
        let text = "HTTP/1.1 200 OK\r\ncontent-Length: 3\r\nA: b\r\n\r\nabcHTTP/1.1 404 No\r\n";
        let mut answer = text.as_bytes();
        skip_answer(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 404"));
        assert!(skip_answer(&mut answer).is_err());
        assert!(skip_answer(&mut "HTTP/1.1 200 OK\r\n\r\n".as_bytes()).is_err());
    }
}
