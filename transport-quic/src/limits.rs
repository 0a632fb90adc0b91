//! What a peer may take: windows, time-outs, handshakes at once.

use std::sync::Arc;
use std::time::Duration;

use hotspare_tls::Credentials;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};

/// How long a handshake may take, on either side. The engine gives a link up that does not come about within 2 s: by then this side
/// has said what is wrong, which it knows better.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(1_800);

/// How many strangers may be shaking hands at once; the next ones are refused. As many as the driver lets in before they
/// have said who they are.
pub(crate) const HANDSHAKES_MAX: usize = 64;

/// From how many on a stranger must first show that it receives at the address that it sends from.
pub(crate) const HANDSHAKES_BEFORE_RETRY: usize = 16;

/// Unsent bytes above which a stream pushes back. One frame more may be taken.
pub(crate) const UNSENT_BYTES_MAX: usize = 256 << 10;

/// Bytes on their way on one stream: what is sent and not acknowledged, or has come and is not read. On a path of 50 ms
/// this allows 80 MB a second.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// Of both streams together, so that neither, full, holds up the other.
const WINDOW_BYTES: u32 = 2 * STREAM_WINDOW_BYTES;

/// Bytes of datagrams that wait to be sent, where one more waits for room, or to be read, where the oldest are lost.
const DATAGRAM_BYTES_MAX: usize = 256 << 10;

/// How long a link lives without a sign of the peer. The engine gives it up earlier.
const IDLE_MS: u32 = 5_000;

/// How often an idle link gives a sign of life: links that no session uses yet, and addresses that a router forgets.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// What a stranger may have waiting before anybody looks at it, in bytes, and all of them together.
const EARLY_BYTES: u64 = 16 << 10;
const EARLY_BYTES_TOTAL: u64 = 1 << 20;

/// `bulk_streams`: how many streams the peer may open for full copies.
fn transport(bulk_streams: u32) -> Arc<TransportConfig> {
    let mut limits = TransportConfig::default();
    limits
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(bulk_streams))
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES_MAX))
        .datagram_send_buffer_size(DATAGRAM_BYTES_MAX)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE));
    Arc::new(limits)
}

/// For the end that dials: a replica, to which full copies are sent.
pub(crate) fn client(credentials: &Credentials) -> Result<ClientConfig, NoInitialCipherSuite> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(credentials.client())?));
    config.transport_config(transport(1));
    Ok(config)
}

/// For the end that accepts.
pub(crate) fn server(credentials: &Credentials) -> Result<ServerConfig, NoInitialCipherSuite> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(credentials.server())?));
    config
        .transport_config(transport(0))
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(EARLY_BYTES)
        .incoming_buffer_size_total(EARLY_BYTES_TOTAL)
        .migration(true);
    Ok(config)
}
