//! The rate limits: for each kind of action per user and per address, and for password guesses.

mod guesses;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock as _};

use self::guesses::{Budget, Guesses};
use crate::{
    account::LocalDevice,
    config::{Rate, RateLimits as Config},
    limit_exceeded::LimitExceeded,
    network::network,
    store::UserNid,
};

/// The kinds of action that are counted separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Send,
    Login,
    Register,
    CreateRoom,
    Invite,
    Join,
    Presence,
    Sync,
    Other,
}

struct Limiter {
    burst: NonZeroU32,
    user: DefaultKeyedRateLimiter<UserNid>,
    address: DefaultKeyedRateLimiter<IpAddr>,
}

/// All rate limit counters. They are only in memory: a restart resets them.
pub struct RateLimits {
    enabled: bool,
    limiters: [Limiter; 9],
    guesses: Guesses,
}

/// A guess at an account's password. If dropped, it counts as wrong.
#[must_use]
pub struct Guess<'a> {
    guesses: Option<&'a Guesses>,
    account: &'a str,
    address: Option<IpAddr>,
}

impl Guess<'_> {
    /// Returns the guess to the budget, because it was not wrong.
    pub fn give_back(self) {
        if let Some(guesses) = self.guesses {
            guesses.give_back(self.account, self.address);
        }
    }
}

impl RateLimits {
    pub fn new(config: &Config) -> Self {
        let limiter = |rate: &Rate| Limiter {
            burst: NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN),
            user: RateLimiter::keyed(quota(rate.per_second, f64::from(rate.burst))),
            address: RateLimiter::keyed(quota(
                rate.per_second * config.address_factor,
                f64::from(rate.burst) * config.address_factor,
            )),
        };
        // In the order of `Action`.
        let limiters = [
            &config.send,
            &config.login,
            &config.register,
            &config.create_room,
            &config.invite,
            &config.join,
            &config.presence,
            &config.sync,
            &config.other,
        ]
        .map(limiter);
        let guesses = Guesses::new(budget(&config.login, 1.0), budget(&config.login, config.address_factor));
        Self { enabled: config.enabled, limiters, guesses }
    }

    /// Counts one action, for the user if there is one and for the address.
    ///
    /// # Errors
    /// When it comes too soon.
    pub fn check(&self, action: Action, user: Option<UserNid>, address: Option<IpAddr>) -> Result<(), LimitExceeded> {
        self.check_many(action, NonZeroU32::MIN, user, address)
    }

    /// Counts an action that a request does in addition to its endpoint's own: `PUT state/m.room.member` may invite.
    /// Exempt callers are not counted.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_done(
        &self,
        action: Action,
        times: usize,
        caller: &LocalDevice,
        address: Option<IpAddr>,
    ) -> Result<(), LimitExceeded> {
        let times = NonZeroU32::new(u32::try_from(times).unwrap_or(u32::MAX));
        match times.filter(|_| !caller.is_exempt_from_rate_limits()) {
            Some(times) => self.check_many(action, times, Some(caller.user.nid), address),
            None => Ok(()),
        }
    }

    /// Counts several actions at once: at most a whole burst, since more could never succeed.
    fn check_many(
        &self,
        action: Action,
        times: NonZeroU32,
        user: Option<UserNid>,
        address: Option<IpAddr>,
    ) -> Result<(), LimitExceeded> {
        if !self.enabled {
            return Ok(());
        }
        let limiter = &self.limiters[action as usize];
        let times = times.min(limiter.burst);
        let wait = |until: governor::NotUntil<governor::clock::QuantaInstant>| {
            until.wait_time_from(governor::clock::DefaultClock::default().now())
        };
        let refuse = |wait: Duration| Err(limit_exceeded(wait));
        if let Some(user) = user
            && let Ok(Err(until)) = limiter.user.check_key_n(&user, times)
        {
            return refuse(wait(until));
        }
        if let Some(address) = address
            && let Ok(Err(until)) = limiter.address.check_key_n(&network(address), times)
        {
            return refuse(wait(until));
        }
        Ok(())
    }

    /// Counts a password guess at an account. `account` is its name; no such account need exist.
    ///
    /// # Errors
    /// When it comes too soon.
    pub fn guess<'a>(&'a self, account: &'a str, address: Option<IpAddr>) -> Result<Guess<'a>, LimitExceeded> {
        let address = address.map(network);
        let guesses = self.enabled.then_some(&self.guesses);
        if let Some(guesses) = guesses {
            guesses.take(account, address, Instant::now()).map_err(limit_exceeded)?;
        }
        Ok(Guess { guesses, account, address })
    }

    /// Removes idle users and addresses. Called regularly, so that memory stays bounded.
    pub fn forget_idle(&self) {
        for limiter in &self.limiters {
            limiter.user.retain_recent();
            limiter.address.retain_recent();
        }
        self.guesses.forget_whole(Instant::now());
    }
}

fn limit_exceeded(wait: Duration) -> LimitExceeded {
    LimitExceeded { wait: wait.max(Duration::from_millis(1)) }
}

fn budget(rate: &Rate, factor: f64) -> Budget {
    let burst = (f64::from(rate.burst) * factor).clamp(1.0, 1e9) as u32;
    Budget { burst, period: period(rate.per_second * factor) }
}

fn quota(per_second: f64, burst: f64) -> Quota {
    let burst = NonZeroU32::new(burst.clamp(1.0, 1e9) as u32).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(period(per_second)).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN)).allow_burst(burst)
}

/// The time in which one action comes back at a rate of `per_second`.
fn period(per_second: f64) -> Duration {
    Duration::from_secs_f64(1.0 / per_second.clamp(0.001, 1e9))
}
