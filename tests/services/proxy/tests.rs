//! Each fault, seen by a client of a small server.

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
