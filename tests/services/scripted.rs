//! An HTTP server whose answers are a Rust function: for services that are a few requests and that must fail on demand.
//!
//! HTTP/1.1 as the proxy speaks it: requests are held in memory, without pipelining and without chunks.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use super::daemon::free_port;
use super::proxy::{Message, header, peek};

/// A request.
pub(super) struct Request {
    pub(super) method: String,
    /// With its query.
    pub(super) path: String,
    head: String,
    pub(super) body: String,
}

/// Status and body, which is JSON.
pub(super) type Reply = (u16, String);

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server that listens. Dropping it closes its connections.
pub(super) struct Scripted {
    port: u16,
    ended: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Scripted {
    pub(super) fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Result<Self> {
        let port = free_port()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        // So that it ends between two looks.
        listener.set_nonblocking(true)?;
        let ended = Arc::new(AtomicBool::new(false));
        let acceptor = std::thread::spawn({
            let (script, ended): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&ended));
            move || accept(&listener, &script, &ended)
        });
        Ok(Self { port, ended, acceptor: Some(acceptor) })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scripted({})", self.port)
    }
}

impl Request {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

fn accept(listener: &TcpListener, script: &Arc<Script>, ended: &Arc<AtomicBool>) {
    while !ended.load(Ordering::SeqCst) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let (script, ended) = (Arc::clone(script), Arc::clone(ended));
        std::thread::spawn(move || {
            // What fails here is the connection's end for the client.
            let _ = client.set_nodelay(true).and_then(|()| serve(&client, &script, &ended));
        });
    }
}

fn serve(mut client: &TcpStream, script: &Arc<Script>, ended: &AtomicBool) -> io::Result<()> {
    while peek(client, || ended.load(Ordering::SeqCst), |there| !there.is_empty())?.is_some() {
        let message = Message::request(client)?;
        let text = String::from_utf8_lossy(&message.bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let request =
            Request { method: method.to_owned(), path: path.to_owned(), head: head.to_owned(), body: body.to_owned() };
        let (status, body) = script(&request);
        write!(
            client,
            "HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        if message.is_last {
            return Ok(());
        }
    }
    Ok(())
}
