//! One broker for all tests that run at once and do nothing to it: a broker of its own takes a test some seconds.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use philotes_tests::kafka::Client;
use philotes_tests::or_skip;
use philotes_tests::services::kafka::Kafka;

/// A broker that is stopped when the last of its tests lets go of it.
pub(super) struct Broker {
    bootstrap: String,
    /// The broker lives as long as the thread that started it, and that as long as this.
    hold: Option<Sender<()>>,
    owner: Option<JoinHandle<()>>,
}

static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());

impl Broker {
    /// The broker of the tests that run now, and a client.
    pub(super) fn shared() -> Option<(Arc<Self>, Client)> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let broker = match shared.upgrade() {
            Some(broker) => broker,
            None => {
                let broker = Arc::new(or_skip(Self::start)?);
                *shared = Arc::downgrade(&broker);
                broker
            }
        };
        let client = Client::new(&broker.bootstrap).unwrap();
        Some((broker, client))
    }

    fn start() -> Result<Self> {
        let (started, answer) = channel();
        let (hold, held) = channel::<()>();
        let owner = std::thread::spawn(move || {
            let kafka = Kafka::start();
            let _ = started.send(kafka.as_ref().map(Kafka::bootstrap).map_err(|error| format!("{error:#}")));
            // Nobody sends: it ends when the sender is dropped.
            let _ = held.recv();
            drop(kafka);
        });
        let bootstrap = answer.recv().context("the broker's thread has died")?.map_err(anyhow::Error::msg)?;
        Ok(Self { bootstrap, hold: Some(hold), owner: Some(owner) })
    }

    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.hold.take();
        if let Some(owner) = self.owner.take() {
            let _ = owner.join();
        }
    }
}
