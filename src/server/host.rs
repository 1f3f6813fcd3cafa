//! The name a request says it came to: what keeps web pages from talking to a daemon on this machine.
//!
//! A page can have its own name resolve to 127.0.0.1 and then ask as if we were its server. Its requests
//! carry that name, so on the loopback interface only names are taken that nobody else can own.

use crate::error::{ErrorKind, InferError};
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderValue, Request, Uri};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Takes every name.
const ANY: &str = "*";

/// The names that are taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    /// These names, and this machine's.
    pub(super) fn new(allowed: &[String]) -> Self {
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self(allowed.iter().cloned().chain([own]).filter(|name| !name.is_empty()).collect())
    }

    /// Refuses a request that a page of another name may have sent.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), InferError> {
        if self.0.iter().any(|name| name == ANY) {
            return Ok(());
        }
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let host = request.headers().get(HOST).map(text);
        for named in authority.into_iter().chain(host) {
            if !named.is_empty() && !self.takes(&named) {
                return Err(refusal("Host", &named));
            }
        }
        let Some(origin) = request.headers().get(ORIGIN).map(text) else { return Ok(()) };
        let page = origin.parse::<Uri>().ok().and_then(|page| page.into_parts().authority);
        if page.is_some_and(|page| self.takes(page.as_str())) {
            return Ok(());
        }
        Err(refusal("Origin", &origin))
    }

    fn takes(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let host = authority.host().trim_end_matches('.');
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<Ipv4Addr>().is_ok()
            || bare.parse::<Ipv6Addr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

fn refusal(header: &str, came: &str) -> InferError {
    let text = format!(
        "{header} is '{}'; expected localhost, an address, this machine's name, or a name given with \
         --allow-host",
        came.escape_debug()
    );
    InferError::new(ErrorKind::Forbidden, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_else_can_own() {
        let hosts = Hosts::new(&["models.test".to_owned()]);
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let taken = ["localhost:8000", "LOCALHOST", "127.0.0.1:8000", "[::1]:8000", "10.0.0.7"];
        for name in taken.into_iter().chain(["models.test", "Models.Test:80", &own, "localhost."]) {
            let request = Request::get("/v2").header(HOST, name).body(()).unwrap();
            assert_eq!(hosts.check(&request), Ok(()), "{name}");
            let request = Request::get("/v2").header(ORIGIN, format!("http://{name}"));
            assert_eq!(hosts.check(&request.body(()).unwrap()), Ok(()), "{name}");
        }
        for name in
            ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test:8000", "evil.test:80@"]
        {
            let request = Request::get("/v2").header(HOST, name).body(()).unwrap();
            assert!(hosts.check(&request).is_err(), "{name}");
            let request = Request::get("/v2").header(ORIGIN, format!("http://{name}"));
            assert!(hosts.check(&request.body(()).unwrap()).is_err(), "{name}");
        }
        let none = Request::get("/v2").body(()).unwrap();
        assert_eq!(hosts.check(&none), Ok(()), "HTTP/1.0 has no Host");
        let null = Request::get("/v2").header(ORIGIN, "null").body(()).unwrap();
        assert!(hosts.check(&null).is_err());
        let any = Hosts::new(&["*".to_owned()]);
        let request = Request::get("/v2").header(HOST, "evil.test").body(()).unwrap();
        assert_eq!(any.check(&request), Ok(()));
    }
}
