//! A proxy in front of a server that spoils its clients' connections when it is told to: late replies, lost replies, requests
//! that arrive twice.
//!
//! One for HTTP knows where a request begins and ends, and takes each to the server on a connection of its own. A fault can
//! so be kept for some requests of a client that reuses its connections. Requests and replies are held in memory, HTTP/1.1
//! without pipelining and upgrades is all that it speaks.

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

/// Replies to a request of HTTP, given its head, instead of the server, or lets it pass.
pub(super) struct Guard(pub(super) Box<Reply>);

type Reply = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
fn peek(
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
struct Message {
    bytes: Vec<u8>,
    /// The connection ends after it.
    is_last: bool,
}

/// Where a body ends.
enum Length {
    Bytes(u64),
    Chunks,
    Unknown,
}

impl Message {
    fn request(mut client: &TcpStream) -> io::Result<Self> {
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
mod tests {
    use std::time::Instant;

    use super::*;

    /// A server that answers each request with how many it has had, and remembers them.
    struct Server {
        port: u16,
        requests: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        /// `read` takes one request from a connection, `write` makes the reply.
        fn start(read: fn(&mut BufReader<TcpStream>) -> io::Result<String>, write: fn(&str, usize) -> String) -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let requests = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&requests);
            // Ends with the test's process.
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    let seen = Arc::clone(&seen);
                    std::thread::spawn(move || {
                        let mut from = BufReader::new(client.try_clone().unwrap());
                        while let Ok(request) = read(&mut from) {
                            let number = {
                                let mut seen = lock(&seen);
                                seen.push(request.clone());
                                seen.len()
                            };
                            if (&client).write_all(write(&request, number).as_bytes()).is_err() {
                                return;
                            }
                        }
                    });
                }
            });
            Self { port, requests }
        }

        /// Lines, each answered with a line.
        fn lines() -> Self {
            let read = |from: &mut BufReader<TcpStream>| {
                let mut line = String::new();
                match from.read_line(&mut line)? {
                    0 => Err(ErrorKind::UnexpectedEof.into()),
                    _ => Ok(line.trim().to_owned()),
                }
            };
            Self::start(read, |request, number| format!("{request} {number}\n"))
        }

        /// HTTP, read by a parser of its own; a request is remembered as its first line and its body.
        fn http() -> Self {
            let read = |from: &mut BufReader<TcpStream>| {
                let (mut head, mut length) = (Vec::new(), 0);
                loop {
                    let mut line = String::new();
                    if from.read_line(&mut line)? == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    match line.trim() {
                        "" => break,
                        "Transfer-Encoding: chunked" => length = "3\r\nabc\r\n0\r\n\r\n".len(),
                        line => {
                            let value = line.strip_prefix("Content-Length: ");
                            length = value.map_or(length, |length| length.parse().unwrap());
                            head.push(line.to_owned());
                        }
                    }
                }
                let mut body = vec![0; length];
                from.read_exact(&mut body)?;
                Ok(format!("{} {}", head[0], String::from_utf8(body).unwrap()).trim().to_owned())
            };
            Self::start(read, |request, number| match request {
                request if request.starts_with("HEAD ") => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_owned(),
                request if request.contains("/chunks") => format!(
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                     1;x=y\r\n{number}\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n"
                ),
                request if request.contains("/rest") => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                _ => format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno{number}"),
            })
        }

        fn requests(&self) -> Vec<String> {
            lock(&self.requests).clone()
        }
    }

    struct Client(BufReader<TcpStream>);

    impl Client {
        fn connect(proxy: &Proxy) -> io::Result<Self> {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok(Self(BufReader::new(stream)))
        }

        fn send(&mut self, text: &str) {
            self.0.get_mut().write_all(text.as_bytes()).unwrap();
        }

        /// Everything until this is there.
        fn until(&mut self, end: &str) -> String {
            let mut got = Vec::new();
            while !got.ends_with(end.as_bytes()) {
                let mut byte = [0];
                self.0.read_exact(&mut byte).unwrap();
                got.push(byte[0]);
            }
            String::from_utf8(got).unwrap()
        }

        /// Everything until the connection closes.
        fn rest(&mut self) -> io::Result<String> {
            let mut got = String::new();
            self.0.read_to_string(&mut got).map(|_| got)
        }

        /// Sends a line; what comes until the end of a line, or of the connection.
        fn ask(&mut self, line: &str) -> io::Result<String> {
            self.send(&format!("{line}\n"));
            let mut got = String::new();
            self.0.read_line(&mut got).map(|_| got)
        }
    }

    const COMMIT: &str = "POST /v1/namespaces/cdc/tables/t HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody";
    const OTHER: &str = "GET /v1/namespaces/cdc/tables/t HTTP/1.1\r\n\r\n";

    fn spoiled_http(fault: Fault) -> (Server, Proxy) {
        let server = Server::http();
        let proxy = Proxy::http(server.port).unwrap();
        proxy.set(Rule::new(fault).on("POST", "/tables/").times(1)).unwrap();
        (server, proxy)
    }

    #[test]
    fn http_goes_through_unspoiled() {
        let server = Server::http();
        let proxy = Proxy::http(server.port).unwrap();
        let mut client = Client::connect(&proxy).unwrap();
        client.send(OTHER);
        assert!(client.until("\r\n\r\nno1").starts_with("HTTP/1.1 200 OK\r\n"));
        client.send("HEAD /x HTTP/1.1\r\n\r\n");
        client.until("\r\n\r\n");
        client.send("GET /rest HTTP/1.1\r\n\r\n");
        assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 204"));
        client.send("PUT /chunks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na");
        client.send("bc\r\n0\r\n\r\n");
        let reply = client.until("0\r\nX: y\r\n\r\n");
        assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("\r\n\r\n1;x=y\r\n4\r\n2\r\nok\r\n"), "{reply}");
        client.send("PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n");
        assert_eq!(client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("ab");
        assert!(client.rest().unwrap().ends_with("\r\n\r\nno5"));
        let requests = [
            "GET /v1/namespaces/cdc/tables/t HTTP/1.1",
            "HEAD /x HTTP/1.1",
            "GET /rest HTTP/1.1",
            "PUT /chunks HTTP/1.1 3\r\nabc\r\n0",
            "PUT /x HTTP/1.1 ab",
        ];
        assert_eq!(server.requests(), requests);
        assert_eq!(proxy.struck(), 0);
    }

    /// Others on the same connection pass, and so does the second of the kind.
    #[test]
    fn an_http_fault_is_kept_for_its_requests() {
        let (server, proxy) = spoiled_http(Fault::Delay(Duration::from_millis(300)));
        let mut client = Client::connect(&proxy).unwrap();
        let late = [OTHER, COMMIT, COMMIT].map(|request| {
            let start = Instant::now();
            client.send(request);
            client.until("\r\n\r\nno");
            client.0.read_exact(&mut [0]).unwrap();
            start.elapsed() >= Duration::from_millis(300)
        });
        assert_eq!(late, [false, true, false]);
        assert_eq!((server.requests().len(), proxy.struck()), (3, 1));
    }

    #[test]
    fn an_http_reply_is_cut() {
        let (server, proxy) = spoiled_http(Fault::Cut(12));
        let mut client = Client::connect(&proxy).unwrap();
        client.send(COMMIT);
        assert_eq!(client.rest().unwrap(), "HTTP/1.1 200");
        assert_eq!(server.requests().len(), 1);
    }

    #[test]
    fn an_http_reply_is_swallowed() {
        let (server, proxy) = spoiled_http(Fault::Swallow);
        let mut client = Client::connect(&proxy).unwrap();
        client.send(COMMIT);
        assert_eq!(client.rest().unwrap(), "");
        assert_eq!(server.requests(), ["POST /v1/namespaces/cdc/tables/t HTTP/1.1 body"]);
    }

    #[test]
    fn an_http_request_is_doubled() {
        for (answer, end) in [(Answer::First, "no1"), (Answer::Second, "no2")] {
            let (server, proxy) = spoiled_http(Fault::Double(answer));
            let mut client = Client::connect(&proxy).unwrap();
            client.send(COMMIT);
            client.until(end);
            assert_eq!(server.requests(), ["POST /v1/namespaces/cdc/tables/t HTTP/1.1 body"; 2]);
            client.send(OTHER);
            client.until("no3");
        }
    }

    #[test]
    fn an_http_connection_is_reset() {
        let (server, proxy) = spoiled_http(Fault::Reset);
        let mut client = Client::connect(&proxy).unwrap();
        client.send(COMMIT);
        assert_eq!(client.rest().unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(server.requests().is_empty());
    }

    #[test]
    fn an_http_request_is_refused() {
        let (server, proxy) = spoiled_http(Fault::Refuse);
        let mut client = Client::connect(&proxy).unwrap();
        client.send(COMMIT);
        assert_eq!(client.rest().unwrap(), "");
        assert!(server.requests().is_empty());
        let mut client = Client::connect(&proxy).unwrap();
        client.send(COMMIT);
        client.until("no1");
    }

    #[test]
    fn nobody_listens_while_all_is_refused() {
        let server = Server::lines();
        let proxy = Proxy::tcp(server.port).unwrap();
        let mut before = Client::connect(&proxy).unwrap();
        assert_eq!(before.ask("a").unwrap(), "a 1\n");
        proxy.set(Rule::new(Fault::Refuse)).unwrap();
        assert_eq!(Client::connect(&proxy).err().unwrap().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(before.rest().unwrap(), "");
        proxy.clear().unwrap();
        assert_eq!(Client::connect(&proxy).unwrap().ask("b").unwrap(), "b 2\n");
    }

    #[test]
    fn any_connection_is_spoiled_while_it_lasts() {
        let server = Server::lines();
        let proxy = Proxy::tcp(server.port).unwrap();
        let mut client = Client::connect(&proxy).unwrap();
        assert_eq!(client.ask("a").unwrap(), "a 1\n");
        proxy.set(Rule::new(Fault::Delay(Duration::from_millis(300)))).unwrap();
        let start = Instant::now();
        assert_eq!(client.ask("b").unwrap(), "b 2\n");
        assert!(start.elapsed() >= Duration::from_millis(300));
        proxy.set(Rule::new(Fault::Cut(6))).unwrap();
        assert_eq!(client.ask("c").unwrap(), "c 3\n");
        assert_eq!(client.ask("d").unwrap(), "d ");
        assert_eq!(server.requests(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn any_reply_is_swallowed() {
        let server = Server::lines();
        let proxy = Proxy::tcp(server.port).unwrap();
        proxy.set(Rule::new(Fault::Swallow).times(1)).unwrap();
        assert_eq!(Client::connect(&proxy).unwrap().ask("a").unwrap(), "");
        assert_eq!(Client::connect(&proxy).unwrap().ask("b").unwrap(), "b 2\n");
    }

    #[test]
    fn any_connection_is_reset() {
        let server = Server::lines();
        let proxy = Proxy::tcp(server.port).unwrap();
        let mut client = Client::connect(&proxy).unwrap();
        assert_eq!(client.ask("a").unwrap(), "a 1\n");
        proxy.set(Rule::new(Fault::Reset)).unwrap();
        assert_eq!(client.ask("b").unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(server.requests(), ["a"]);
    }

    #[test]
    fn any_connection_is_doubled() {
        for answer in [Answer::First, Answer::Second] {
            let server = Server::lines();
            let proxy = Proxy::tcp(server.port).unwrap();
            proxy.set(Rule::new(Fault::Double(answer))).unwrap();
            let mut client = Client::connect(&proxy).unwrap();
            assert!(client.ask("a").unwrap().starts_with("a "));
            let is_doubled = crate::eventually(Duration::from_secs(5), || Ok(server.requests() == ["a", "a"]));
            assert!(is_doubled.unwrap());
        }
    }

    #[test]
    fn an_ended_proxy_closes_its_connections() {
        let server = Server::lines();
        let proxy = Proxy::tcp(server.port).unwrap();
        let mut client = Client::connect(&proxy).unwrap();
        assert_eq!(client.ask("a").unwrap(), "a 1\n");
        let port = proxy.port();
        drop(proxy);
        assert_eq!(client.rest().unwrap(), "");
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    }
}
