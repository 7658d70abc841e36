//! The servers that are configured: whether they are reached, believed, and of one mind about the time.
//!
//! Not here: what they keep their state in.

use super::Report;
use pki::{Client, PkiError};
use reqwest::header::DATE;
use std::time::Duration;

/// How long a server may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Clocks that differ by more make certificates and signed URLs fail now and then, seconds.
const SKEW_WARNING_S: u64 = 5;

/// Clocks that differ by more make them fail, seconds.
const SKEW_MAX_S: u64 = 60;

/// One server of the configuration.
pub(super) async fn server(report: &mut Report, url: &str, client: Option<&Result<Client, PkiError>>) {
    let what = format!("server {url}");
    let before_s = pki::now_s();
    match ask(url, client).await {
        Err(text) => report.failed(&what, text),
        Ok((status, date)) => {
            let told = if status == 200 {
                "is ready"
            } else {
                "answers, but is not ready"
            };
            match date.map(|date_s| skew(date_s, before_s, pki::now_s())) {
                Some(skew_s) if skew_s > SKEW_MAX_S => {
                    report.failed(
                        &what,
                        format!("its clock and this one differ by {skew_s} s; run an NTP client on both"),
                    );
                }
                Some(skew_s) if skew_s > SKEW_WARNING_S => {
                    report.warning(
                        &what,
                        format!("its clock and this one differ by {skew_s} s; run an NTP client on both"),
                    );
                }
                _ if status == 200 => report.ok(&what, told),
                _ => report.warning(&what, told),
            }
        }
    }
}

/// How far a moment lies outside of a span.
fn skew(moment_s: u64, from_s: u64, to_s: u64) -> u64 {
    from_s.saturating_sub(moment_s).max(moment_s.saturating_sub(to_s))
}

async fn ask(url: &str, client: Option<&Result<Client, PkiError>>) -> Result<(u16, Option<u64>), String> {
    let builder = reqwest::Client::builder().timeout(TIMEOUT).no_proxy();
    let builder = match client {
        None => builder,
        Some(Ok(client)) => builder.tls_backend_preconfigured(client.config()),
        Some(Err(error)) => return Err(error.to_string()),
    };
    let http = builder.build().map_err(|e| e.to_string())?;
    let answer = http.get(format!("{}/readyz", url.trim_end_matches('/'))).send().await;
    let answer = answer.map_err(|error| match pki::reason(&error) {
        Some(refusal) => refusal.to_string(),
        None => format!("cannot be reached: {}", innermost(&error)),
    })?;
    let date = answer
        .headers()
        .get(DATE)
        .and_then(|v| v.to_str().ok())
        .and_then(http_date);
    Ok((answer.status().as_u16(), date))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds of the Unix epoch.
pub(super) fn http_date(text: &str) -> Option<u64> {
    let parts: Vec<&str> = text.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = parts.as_slice() else {
        return None;
    };
    let month = MONTHS.iter().position(|m| m == month)? as u64 + 1;
    let number = |text: &str| text.parse::<u64>().ok();
    let (day, year) = (number(day)?, number(year)?);
    if !(1..=31).contains(&day) || !(1970..=9999).contains(&year) {
        return None;
    }
    // Days from 1970-01-01: years begin in March, so that the leap day comes last.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + number(hour)? * 3_600 + number(minute)? * 60 + number(second)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_are_read() {
        for (text, moment) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00Z"),
            ("Sun, 06 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37Z"),
            ("Thu, 29 Feb 2024 23:59:59 GMT", "2024-02-29T23:59:59Z"),
        ] {
            assert_eq!(http_date(text).map(pki::rfc3339).as_deref(), Some(moment));
        }
        for text in ["", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT"] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    #[test]
    fn the_time_of_the_question_is_no_skew() {
        for (moment, expected) in [(10, 0), (12, 0), (9, 1), (20, 8)] {
            assert_eq!(skew(moment, 10, 12), expected);
        }
    }
}
