//! A proxy in front of a server that spoils its clients' connections when it is told to: late replies, lost replies, requests
//! that arrive twice.
//!
//! One for HTTP knows where a request begins and ends, and takes each to the server on a connection of its own. A fault can
//! so be kept for some requests of a client that reuses its connections. Requests and replies are held in memory, HTTP/1.1
//! without pipelining and upgrades is all that it speaks.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use super::daemon::free_port;

/// How long a thread waits before it looks whether the proxy has ended or refuses.
const TICK: Duration = Duration::from_millis(20);

/// What may become of a request. Without HTTP a request is whatever the client sends in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server has done it, the reply comes this much later.
    Delay(Duration),
    /// The server has done it; the connection closes after this many bytes of the reply.
    Cut(usize),
    /// The server has done it; the connection closes without a byte of the reply.
    Swallow,
    /// The server does it twice, one after the other, and the client sees one reply. Without HTTP a connection is doubled
    /// from its beginning on, or not at all.
    Double(Answer),
    /// The server does not see it; the connection is reset.
    Reset,
    /// The server does not see it; the connection closes. Where it is for every request, nobody listens at all.
    Refuse,
}

/// Which reply of a doubled request the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The first: the client does not notice.
    First,
    /// The second: the client may be told that what it wants is there already.
    Second,
}

/// A fault and when it happens.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    /// Method and a part of the path; every request where it is `None`.
    request: Option<(String, String)>,
    /// How often it still happens; always where it is `None`.
    left: Option<u32>,
}

impl Rule {
    /// This fault for every request.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { fault, request: None, left: None }
    }

    /// Only for HTTP requests of this method whose path contains this.
    #[must_use]
    pub fn on(self, method: &str, path: &str) -> Self {
        Self { request: Some((method.to_owned(), path.to_owned())), ..self }
    }

    /// Only for the first so many; this says nothing to a proxy where nobody listens.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { left: Some(times), ..self }
    }

    fn is_for(&self, request: Option<(&str, &str)>) -> bool {
        let Some((method, path)) = &self.request else { return true };
        request.is_some_and(|request| request.0 == method && request.1.contains(path))
    }

    fn refuses_all(&self) -> bool {
        self.fault == Fault::Refuse && self.request.is_none()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)?;
        if let Some((method, path)) = &self.request {
            write!(f, " of {method} {path}")?;
        }
        match self.left {
            Some(times) => write!(f, ", {times} times"),
            None => Ok(()),
        }
    }
}

/// Replies to a request of HTTP, given its head, instead of the server, or lets it pass.
pub(super) struct Guard(pub(super) Box<Reply>);

type Reply = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

/// A proxy that listens. Dropping it closes its connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    target: u16,
    serve: fn(&TcpStream, &Shared) -> io::Result<()>,
    guard: Option<Guard>,
    /// `None` while nobody listens.
    listener: Mutex<Option<TcpListener>>,
    rule: Mutex<Option<Rule>>,
    struck: AtomicU32,
    ended: AtomicBool,
}

impl Proxy {
    /// In front of a server that listens on this port of 127.0.0.1, whatever it speaks.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub fn tcp(target: u16) -> Result<Self> {
        Self::start(target, serve_tcp, None)
    }

    /// In front of an HTTP server that listens on this port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub fn http(target: u16) -> Result<Self> {
        Self::start(target, serve_http, None)
    }

    /// The same with a guard.
    pub(super) fn guarded(target: u16, guard: Guard) -> Result<Self> {
        Self::start(target, serve_http, Some(guard))
    }

    fn start(target: u16, serve: fn(&TcpStream, &Shared) -> io::Result<()>, guard: Option<Guard>) -> Result<Self> {
        let port = free_port()?;
        let shared = Arc::new(Shared {
            port,
            target,
            serve,
            guard,
            listener: Mutex::new(Some(listen(port)?)),
            rule: Mutex::new(None),
            struck: AtomicU32::new(0),
            ended: AtomicBool::new(false),
        });
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&shared)
        });
        Ok(Self { shared, acceptor: Some(acceptor) })
    }

    /// Follows this rule from now on, and no earlier one.
    ///
    /// # Errors
    /// When its port is lost, which nobody else should take.
    pub fn set(&self, rule: Rule) -> Result<()> {
        self.follow(Some(rule))
    }

    /// Spoils nothing from now on.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn clear(&self) -> Result<()> {
        self.follow(None)
    }

    fn follow(&self, rule: Option<Rule>) -> Result<()> {
        let mut listener = lock(&self.shared.listener);
        if rule.as_ref().is_some_and(Rule::refuses_all) {
            *listener = None;
        } else if listener.is_none() {
            *listener = Some(listen(self.shared.port)?);
        }
        *lock(&self.shared.rule) = rule;
        Ok(())
    }

    /// How many faults there were. Connections that nobody accepted are not counted.
    #[must_use]
    pub fn struck(&self) -> u32 {
        self.shared.struck.load(Ordering::SeqCst)
    }

    /// The port of 127.0.0.1 that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.shared.port
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        *lock(&self.shared.listener) = None;
    }
}

impl Shared {
    /// The fault that happens now, if there is one and it is of those that can.
    fn strike(&self, request: Option<(&str, &str)>, can: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut rule = lock(&self.rule);
        let rule = rule.as_mut().filter(|rule| can(rule.fault) && rule.is_for(request) && rule.left != Some(0))?;
        rule.left = rule.left.map(|left| left - 1);
        self.struck.fetch_add(1, Ordering::SeqCst);
        Some(rule.fault)
    }

    fn is_closed(&self) -> bool {
        self.ended.load(Ordering::SeqCst) || lock(&self.rule).as_ref().is_some_and(Rule::refuses_all)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.target))?;
        server.set_nodelay(true)?;
        Ok(server)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    // So that it can be closed between two looks.
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(shared: &Arc<Shared>) {
    while !shared.ended.load(Ordering::SeqCst) {
        let accepted = lock(&shared.listener).as_ref().map(TcpListener::accept);
        let Some(Ok((client, _))) = accepted else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // What fails here is the connection's end for the client, as it would be without a proxy.
            let _ = client.set_nodelay(true).and_then(|()| (shared.serve)(&client, &shared));
        });
    }
}

/// Waits until the client has sent something that is enough, and gives it without taking it; `None` when the client is at its
/// end, or everything is over.
pub(super) fn peek(
    client: &TcpStream,
    is_over: impl Fn() -> bool,
    is_enough: impl Fn(&[u8]) -> bool,
) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; 64 * 1024];
    client.set_read_timeout(Some(TICK))?;
    while !is_over() {
        match client.peek(&mut bytes) {
            Ok(0) => return Ok(None),
            Ok(there) if is_enough(&bytes[..there]) => {
                client.set_read_timeout(None)?;
                bytes.truncate(there);
                return Ok(Some(bytes));
            }
            Ok(there) if there == bytes.len() => return Err(ErrorKind::InvalidData.into()),
            Ok(_) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn serve_http(mut client: &TcpStream, shared: &Shared) -> io::Result<()> {
    let is_head = |bytes: &[u8]| bytes.windows(4).any(|end| end == b"\r\n\r\n");
    while let Some(head) = peek(client, || shared.is_closed(), is_head)? {
        let line = String::from_utf8_lossy(&head);
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let fault = shared.strike(Some((method, path)), |_| true);
        if fault == Some(Fault::Reset) {
            // To close a socket that holds unread bytes is to reset it.
            return Ok(());
        }
        let request = Message::request(client)?;
        if fault == Some(Fault::Refuse) {
            return Ok(());
        }
        if let Some(reply) = shared.guard.as_ref().and_then(|Guard(reply)| reply(&line)) {
            return client.write_all(&reply);
        }
        let mut reply = exchange(shared, &request, method)?;
        match fault {
            Some(Fault::Delay(delay)) => std::thread::sleep(delay),
            Some(Fault::Cut(bytes)) => return client.write_all(&reply.bytes[..bytes.min(reply.bytes.len())]),
            Some(Fault::Swallow) => return Ok(()),
            Some(Fault::Double(answer)) => {
                let second = exchange(shared, &request, method)?;
                if answer == Answer::Second {
                    reply = second;
                }
            }
            Some(Fault::Reset | Fault::Refuse) | None => {}
        }
        client.write_all(&reply.bytes)?;
        if request.is_last || reply.is_last {
            return Ok(());
        }
    }
    Ok(())
}

fn exchange(shared: &Shared, request: &Message, method: &str) -> io::Result<Message> {
    let mut server = shared.connect()?;
    server.write_all(&request.bytes)?;
    Message::reply(&mut BufReader::new(server), method)
}

/// A request or a reply as it stands on the wire.
#[derive(Default)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// The connection ends after it.
    pub(super) is_last: bool,
}

/// Where a body ends.
enum Length {
    Bytes(u64),
    Chunks,
    Unknown,
}

impl Message {
    pub(super) fn request(mut client: &TcpStream) -> io::Result<Self> {
        let mut message = Self::default();
        let mut from = BufReader::new(client);
        let (head, length) = message.read_head(&mut from)?;
        if header(&head, "expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        match length {
            Length::Unknown => {}
            length => message.read_body(&mut from, &length)?,
        }
        Ok(message)
    }

    fn reply(from: &mut impl BufRead, method: &str) -> io::Result<Self> {
        loop {
            let mut message = Self::default();
            let (head, length) = message.read_head(from)?;
            match (method, head.split(' ').nth(1).unwrap_or_default()) {
                // The client has been told to continue.
                (_, status) if status.starts_with('1') => continue,
                ("HEAD", _) | (_, "204" | "304") => {}
                _ => message.read_body(from, &length)?,
            }
            return Ok(message);
        }
    }

    fn read_head(&mut self, from: &mut impl BufRead) -> io::Result<(String, Length)> {
        while !self.bytes.ends_with(b"\r\n\r\n") {
            self.read_line(from)?;
        }
        let head = String::from_utf8_lossy(&self.bytes).into_owned();
        self.is_last = header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let length = match header(&head, "content-length") {
            Some(length) => Length::Bytes(length.parse().map_err(|_| ErrorKind::InvalidData)?),
            None if header(&head, "transfer-encoding").is_some() => Length::Chunks,
            None => Length::Unknown,
        };
        Ok((head, length))
    }

    fn read_body(&mut self, from: &mut impl BufRead, length: &Length) -> io::Result<()> {
        match length {
            Length::Bytes(length) => self.read_bytes(from, *length),
            Length::Chunks => self.read_chunks(from),
            Length::Unknown => {
                self.is_last = true;
                from.read_to_end(&mut self.bytes).map(drop)
            }
        }
    }

    fn read_chunks(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        loop {
            let line = self.read_line(from)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| ErrorKind::InvalidData)?;
            if size == 0 {
                break;
            }
            self.read_bytes(from, size + 2)?;
        }
        // Trailers, and the empty line after them.
        while self.read_line(from)? != "\r\n" {}
        Ok(())
    }

    fn read_bytes(&mut self, from: &mut impl BufRead, count: u64) -> io::Result<()> {
        match from.take(count).read_to_end(&mut self.bytes)? as u64 {
            read if read == count => Ok(()),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn read_line(&mut self, from: &mut impl BufRead) -> io::Result<String> {
        let start = self.bytes.len();
        match from.read_until(b'\n', &mut self.bytes)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(String::from_utf8_lossy(&self.bytes[start..]).into_owned()),
        }
    }
}

/// The value of a header.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn serve_tcp(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut servers = vec![shared.connect()?];
    let mut answering = 0;
    if let Some(Fault::Double(answer)) = shared.strike(None, |fault| matches!(fault, Fault::Double(_))) {
        servers.push(shared.connect()?);
        answering = usize::from(answer == Answer::Second);
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (number, server) in servers.iter().enumerate() {
            let over = &over;
            scope.spawn(move || {
                // An error is the connection's end, which is all that there is to tell.
                let _ = if number == answering {
                    carry_replies(server, client, shared, over)
                } else {
                    io::copy(&mut &*server, &mut io::sink()).map(drop)
                };
            });
        }
        let carried = carry_requests(client, &servers, shared, &over);
        // After an orderly end of the requests the replies may still go on.
        let end = if carried.is_ok_and(|everything| everything) { Shutdown::Write } else { Shutdown::Both };
        for server in &servers {
            let _ = server.shutdown(end);
        }
    });
    Ok(())
}

/// True when the client has sent everything, false when the connection is over before.
fn carry_requests(
    mut client: &TcpStream,
    servers: &[TcpStream],
    shared: &Shared,
    over: &AtomicBool,
) -> io::Result<bool> {
    let is_over = || over.load(Ordering::SeqCst) || shared.is_closed();
    while let Some(mut bytes) = peek(client, is_over, |bytes| !bytes.is_empty())? {
        if shared.strike(None, |fault| fault == Fault::Reset).is_some() {
            // The bytes stay unread, which makes the end a reset.
            over.store(true, Ordering::SeqCst);
            break;
        }
        client.read_exact(&mut bytes)?;
        for mut server in servers {
            server.write_all(&bytes)?;
        }
    }
    Ok(!is_over())
}

fn carry_replies(mut server: &TcpStream, mut client: &TcpStream, shared: &Shared, over: &AtomicBool) -> io::Result<()> {
    let can = |fault| matches!(fault, Fault::Delay(_) | Fault::Cut(_) | Fault::Swallow);
    let mut bytes = vec![0; 64 * 1024];
    // How much the client still gets, once that is cut.
    let mut left: Option<usize> = None;
    loop {
        let count = server.read(&mut bytes)?;
        if count == 0 {
            break;
        }
        if left.is_none() {
            match shared.strike(None, can) {
                Some(Fault::Delay(delay)) => std::thread::sleep(delay),
                Some(Fault::Cut(bytes)) => left = Some(bytes),
                Some(Fault::Swallow) => left = Some(0),
                _ => {}
            }
        }
        let passed = left.map_or(count, |left| left.min(count));
        client.write_all(&bytes[..passed])?;
        left = left.map(|left| left - passed);
        if left == Some(0) {
            over.store(true, Ordering::SeqCst);
            return client.shutdown(Shutdown::Both);
        }
    }
    if over.load(Ordering::SeqCst) { Ok(()) } else { client.shutdown(Shutdown::Write) }
}

#[cfg(test)]
mod tests;
