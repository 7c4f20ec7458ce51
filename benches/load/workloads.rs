//! The workloads, in the order in which they run. Each bullet of the speed targets is one of them.

mod idle;
mod members;
mod messages;
mod receive;
mod rooms;
mod send;
mod start;
mod sync;
mod unread;

use clap::ValueEnum;

use crate::{Result, bench::Bench, report::Row};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// An empty server: its memory, and its start on a new database.
    Empty,
    /// One sender with one request in flight, compared with one durable write to the disk.
    SendAlone,
    /// Eight senders in four rooms of four members.
    #[value(name = "send-8")]
    Send8,
    /// 32 requests in flight in 16 rooms of 16 members.
    #[value(name = "send-32")]
    Send32,
    /// 128 requests in flight over 50 rooms.
    #[value(name = "send-50-rooms")]
    Send50Rooms,
    /// 128 requests in flight in one room.
    SendOneRoom,
    /// Time from the request to send until a parked /sync has the message.
    Receive,
    /// One message to 50 parked members, until the last one has it.
    FanOut,
    /// Many users join one public room.
    Join,
    /// Creation of rooms.
    CreateRoom,
    /// Reading state and members of a room of 100.
    RoomState,
    /// A /sync with nothing new.
    NoOpSync,
    /// Rows that one message writes, with few and with many local members.
    RowsPerMessage,
    /// Paging backwards through a room.
    Messages,
    /// First /sync of an account in 40 and in 100 rooms.
    InitialSync,
    /// Memory of thousands of parked /sync requests.
    LongPolls,
    /// Start on the filled database.
    ColdStart,
    /// First /sync of an account in 1,000 rooms full of unread messages.
    Unread,
}

impl Workload {
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub async fn run(self, bench: &mut Bench) -> Result<Vec<Row>> {
        match self {
            Self::Empty => start::empty(bench).await,
            Self::SendAlone => send::alone(bench).await,
            Self::Send8 => send::eight(bench).await,
            Self::Send32 => send::thirty_two(bench).await,
            Self::Send50Rooms => send::fifty_rooms(bench).await,
            Self::SendOneRoom => send::one_room(bench).await,
            Self::Receive => receive::receive(bench).await,
            Self::FanOut => receive::fan_out(bench).await,
            Self::Join => rooms::join(bench).await,
            Self::CreateRoom => rooms::create(bench).await,
            Self::RoomState => rooms::state(bench).await,
            Self::NoOpSync => sync::no_op(bench).await,
            Self::RowsPerMessage => members::rows_per_message(bench).await,
            Self::Messages => messages::messages(bench).await,
            Self::InitialSync => sync::initial(bench).await,
            Self::LongPolls => idle::long_polls(bench).await,
            Self::ColdStart => start::cold(bench).await,
            Self::Unread => unread::unread(bench).await,
        }
    }
}
