//! Whether anybody may come in at the moment: the hall is neither full nor closing, and its broker was heard.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::broker::Status;
use crate::drain::Leaving;
use crate::protocol::NotIn;

/// Why nobody may come in; all of these pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    Leaving,
    /// The broker was not heard since the start.
    Broker,
}

impl Closed {
    pub fn words(self) -> &'static str {
        match self {
            Closed::Leaving => "this replica is leaving; come again at once, to another one",
            Closed::Broker => "the broker was not heard yet; come again in a moment",
        }
    }

    /// What is counted.
    pub fn why(self) -> NotIn {
        match self {
            Closed::Leaving => NotIn::Draining,
            Closed::Broker => NotIn::Broker,
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Gate {
    leaving: Leaving,
    broker: watch::Receiver<Status>,
}

impl Gate {
    pub fn new(leaving: Leaving, broker: watch::Receiver<Status>) -> Self {
        Gate { leaving, broker }
    }

    /// # Errors
    /// Why new clients should not come.
    pub fn pass(&self) -> Result<(), Closed> {
        if self.leaving.has_begun() {
            return Err(Closed::Leaving);
        }
        match &*self.broker.borrow() {
            Status::Never(_) => Err(Closed::Broker),
            Status::Up | Status::Away(_) => Ok(()),
        }
    }

    /// What is known of the broker, in words.
    pub fn broker(&self) -> String {
        match &*self.broker.borrow() {
            Status::Never(why) => format!("the broker was not heard yet: {why}"),
            Status::Up => "the broker is up".into(),
            Status::Away(why) => {
                format!(
                    "the broker is away or does not do all that it should: {why}; clients stay, and are served when it does"
                )
            }
        }
    }
}

/// Why somebody finds no seat; both pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSeat {
    /// All are taken.
    Full,
    /// This address has as many as one may have.
    Address,
}

impl NoSeat {
    pub fn words(self) -> &'static str {
        match self {
            NoSeat::Full => "the hall is full; come again in a moment",
            NoSeat::Address => "too many connections from your address; come again when one of them has ended",
        }
    }

    /// What is counted.
    pub fn why(self) -> NotIn {
        match self {
            NoSeat::Full => NotIn::Full,
            NoSeat::Address => NotIn::Address,
        }
    }
}

/// The clients that there may be at the same time: sockets in all, and of one address those who came by it, some of them
/// through a proxy's socket.
#[derive(Debug)]
pub struct Seats {
    taken: AtomicUsize,
    all: usize,
    /// 0: any number.
    of_one: usize,
    /// The seats of every address that has some; not kept where any number is allowed.
    by_address: Mutex<HashMap<Address, usize>>,
}

/// One of them; free again when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Seat {
    socket: Arc<OfAll>,
    _address: Option<Arc<OfOne>>,
}

/// A socket's share of all seats.
#[derive(Debug)]
struct OfAll(Arc<Seats>);

/// A client's share of the seats of its address.
#[derive(Debug)]
struct OfOne {
    seats: Arc<Seats>,
    address: Address,
}

/// Where somebody comes from, as far as it tells one from another: whoever has one IPv6 address has all of its /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Address {
    V4(Ipv4Addr),
    V6Net([u16; 4]),
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        // A listener on [::] sees IPv4 clients as ::ffff:a.b.c.d.
        match ip.to_canonical() {
            IpAddr::V4(ip) => Address::V4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Address::V6Net([a, b, c, d])
            }
        }
    }
}

impl Seats {
    /// `of_one`: how many of them one address may have; 0: any number.
    pub fn new(all: usize, of_one: usize) -> Arc<Self> {
        Arc::new(Seats { taken: AtomicUsize::new(0), all, of_one, by_address: Mutex::default() })
    }

    /// For a client's own socket.
    ///
    /// # Errors
    /// When all are taken, or all that this address may have.
    pub fn take(self: &Arc<Self>, ip: IpAddr) -> Result<Seat, NoSeat> {
        let address = self.count_in(ip)?;
        Ok(Seat { _address: address, ..self.take_of_all()? })
    }

    /// For a proxy's socket, which is nobody's own: whose its requests are, they say one by one ([`Seat::of`]).
    ///
    /// # Errors
    /// When all are taken.
    pub fn take_of_all(self: &Arc<Self>) -> Result<Seat, NoSeat> {
        // From here on a seat that is not given is free again.
        let socket = Arc::new(OfAll(self.clone()));
        let taken = self.taken.fetch_add(1, Ordering::AcqRel);
        if taken < self.all { Ok(Seat { socket, _address: None }) } else { Err(NoSeat::Full) }
    }

    fn count_in(self: &Arc<Self>, ip: IpAddr) -> Result<Option<Arc<OfOne>>, NoSeat> {
        if self.of_one == 0 {
            return Ok(None);
        }
        let address = Address::from(ip);
        let mut seats = self.by_address();
        let taken = seats.entry(address).or_default();
        if *taken >= self.of_one {
            return Err(NoSeat::Address);
        }
        *taken += 1;
        Ok(Some(Arc::new(OfOne { seats: self.clone(), address })))
    }

    /// Nothing is kept of an address without a connection.
    fn count_out(&self, address: Address) {
        let mut seats = self.by_address();
        if let Some(taken) = seats.get_mut(&address) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&address);
            }
        }
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<Address, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The same socket's seat for a client of this address, who came through a proxy.
    ///
    /// # Errors
    /// When all that this address may have are taken.
    pub fn of(&self, ip: IpAddr) -> Result<Seat, NoSeat> {
        let address = self.socket.0.count_in(ip)?;
        Ok(Seat { socket: self.socket.clone(), _address: address })
    }
}

impl Drop for OfAll {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for OfOne {
    fn drop(&mut self) {
        self.seats.count_out(self.address);
    }
}

/// Where those stand who found no seat, until they are told so. Whoever has stood longest gives way to who comes next: those
/// who connect and say nothing cannot keep others from being told.
#[derive(Debug)]
pub struct Standing {
    places: Mutex<VecDeque<Arc<Notify>>>,
    most: usize,
}

/// One place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    standing: Arc<Standing>,
    gives_way: Arc<Notify>,
}

impl Standing {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Standing { places: Mutex::default(), most })
    }

    pub fn take(self: &Arc<Self>) -> Place {
        let mut places = self.places();
        if places.len() >= self.most
            && let Some(longest) = places.pop_front()
        {
            longest.notify_one();
        }
        let gives_way = Arc::new(Notify::new());
        places.push_back(gives_way.clone());
        drop(places);
        Place { standing: self.clone(), gives_way }
    }

    fn places(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns when somebody else needs the place.
    pub async fn gives_way(&self) {
        self.gives_way.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.standing.places().retain(|place| !Arc::ptr_eq(place, &self.gives_way));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_seat_is_free_again_when_its_client_has_left() {
        let seats = Seats::new(2, 0);
        let (one, two) = (seats.take(ip("127.0.0.1")), seats.take(ip("127.0.0.1")));
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(seats.take(ip("127.0.0.1")).err(), Some(NoSeat::Full));
        drop(one);
        assert!(seats.take(ip("127.0.0.1")).is_ok());
    }

    #[test]
    fn one_address_has_as_many_seats_as_it_may_have_and_others_have_theirs() {
        let seats = Seats::new(10, 2);
        let mine = [seats.take(ip("10.0.0.1")), seats.take(ip("10.0.0.1"))];
        assert!(mine.iter().all(Result::is_ok));
        assert_eq!(seats.take(ip("10.0.0.1")).err(), Some(NoSeat::Address));
        assert!(seats.take(ip("10.0.0.2")).is_ok());
        drop(mine);
        assert!(seats.take(ip("10.0.0.1")).is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_ipv4_address_is_that_address() {
        let seats = Seats::new(10, 1);
        let _first = seats.take(ip("2001:db8:0:1::1"));
        assert_eq!(seats.take(ip("2001:db8:0:1:ffff::2")).err(), Some(NoSeat::Address));
        assert!(seats.take(ip("2001:db8:0:2::1")).is_ok());
        let _mapped = seats.take(ip("::ffff:10.0.0.1"));
        assert_eq!(seats.take(ip("10.0.0.1")).err(), Some(NoSeat::Address));
        assert!(seats.take(ip("::ffff:10.0.0.2")).is_ok());
    }

    #[test]
    fn nothing_is_kept_of_addresses_that_have_left_or_found_no_seat() {
        let seats = Seats::new(1, 1);
        let here = seats.take(ip("10.0.0.1")).unwrap();
        assert_eq!(seats.take(ip("10.0.0.1")).err(), Some(NoSeat::Address));
        assert_eq!(seats.take(ip("10.0.0.2")).err(), Some(NoSeat::Full));
        assert_eq!(seats.by_address().len(), 1);
        drop(here);
        assert_eq!(seats.by_address().len(), 0);
        assert_eq!(seats.taken.load(Ordering::Acquire), 0);
    }

    #[test]
    fn clients_of_one_proxy_have_each_the_seats_of_their_own_address() {
        let seats = Seats::new(2, 1);
        let proxy = seats.take_of_all().unwrap();
        let one = proxy.of(ip("10.0.0.1")).unwrap();
        let two = proxy.of(ip("10.0.0.2")).unwrap();
        assert_eq!(proxy.of(ip("10.0.0.1")).err(), Some(NoSeat::Address));
        assert_eq!(seats.take(ip("10.0.0.1")).err(), Some(NoSeat::Address), "nor past the proxy");
        assert_eq!(seats.taken.load(Ordering::Acquire), 1, "it is one socket");
        drop(proxy);
        assert_eq!(seats.taken.load(Ordering::Acquire), 1, "the clients still have it");
        drop(two.clone());
        assert_eq!(two.of(ip("10.0.0.2")).err(), Some(NoSeat::Address));
        drop((one, two));
        assert_eq!(seats.taken.load(Ordering::Acquire), 0);
        assert_eq!(seats.by_address().len(), 0);
        let _all = [seats.take_of_all().unwrap(), seats.take_of_all().unwrap()];
        assert_eq!(seats.take_of_all().err(), Some(NoSeat::Full));
    }

    #[test]
    fn who_stands_longest_gives_way() {
        let standing = Standing::new(2);
        let (one, two) = (standing.take(), standing.take());
        assert!(one.gives_way().now_or_never().is_none());
        let three = standing.take();
        assert!(one.gives_way().now_or_never().is_some());
        assert!(two.gives_way().now_or_never().is_none());
        drop((one, two));
        let _four = standing.take();
        assert!(three.gives_way().now_or_never().is_none(), "there was room for one more");
        assert_eq!(standing.places().len(), 2);
    }
}
