//! The dashboard, in a real browser: what it shows against what is in Redis, what its buttons do, and what it never does.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::host::Launch;
use crate::support::http::{Request, address};
use crate::support::records::{DEAD, OUTPUT};
use crate::support::{Host, Publisher, Redis, Release, Signal, Traffic, flow, message, repository, wait_until};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Whether the figures are of this moment.
const FRESH: &str = "document.body.dataset.figures === 'fresh'";

fn listening(redis: &Redis) -> Launch {
    Host::on(redis).arg("--http", "127.0.0.1:0")
}

/// A browser that shows the dashboard of a host.
fn showing(host: &Host) -> Browser {
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", address(host)));
    browser.wait_for("fresh figures", FRESH);
    browser
}

/// A number on the page.
fn number(browser: &mut Browser, selector: &str) -> usize {
    let text = browser.text(selector);
    text.replace(',', "").parse().unwrap_or_else(|_| panic!("{selector} is no number: {text:?}"))
}

/// Waits until the text of an element has these words.
fn wait_for_text(browser: &mut Browser, selector: &str, words: &str) {
    let expression = format!("document.querySelector({}).innerText.includes({})", json!(selector), json!(words));
    browser.wait_for(&format!("{words:?} in {selector}"), &expression);
}

/// Requires that the page has asked nobody else, and that the browser has found nothing wrong with it.
fn expect_clean(browser: &Browser, address: SocketAddr) {
    let origin = format!("http://{address}/");
    let requested = browser.requested();
    assert!(requested.iter().all(|url| url.starts_with(&origin)), "{requested:?}");
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Publishes a message that becomes a dead letter, and gives the id of its entry.
fn dead_letter(redis: &Redis, id: &str, reason: &str) -> String {
    Publisher::new(redis).publish(message(id, json!({"do": "reject", "reason": reason})));
    redis.dead_letter_of(id).id().to_owned()
}

#[test]
fn the_files_of_the_page_are_open_and_a_browser_may_keep_them() {
    let redis = Redis::start();
    let host = listening(&redis).env("HOST_HTTP_TOKEN", TOKEN).ready(&redis, 1);
    let address = address(&host);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/page.js", "text/javascript; charset=utf-8"),
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/vendor/uPlot.js", "text/javascript; charset=utf-8"),
        ("/page/vendor/uPlot-LICENSE.txt", "text/plain; charset=utf-8"),
    ] {
        let answer = Request::get(path).send(address);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("cache-control", "no-cache")]
        {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        let tag = answer.header("etag").unwrap().to_owned();
        for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let kept = Request::get(path).header("If-None-Match", &known).send(address);
            assert_eq!((kept.status, kept.body.len(), kept.header("etag")), (304, 0, Some(tag.as_str())), "{path}");
        }
        assert_eq!(Request::get(path).header("If-None-Match", "\"other\"").send(address).status, 200);
    }
    assert_eq!(Request::get("/page/").send(address).status, 404);
    assert_eq!(Request::get("/").method("POST").send(address).status, 405);
}

#[test]
fn the_page_shows_what_is_in_redis_while_messages_flow_and_versions_change() {
    let [a, b] = ["A", "B"].map(Release::new);
    let bad = Release::failing("bad", "trap", 2);
    let redis = Redis::start();
    let plugin = flow::plugin_folder(&redis).join("plugin.wasm");
    let deploy = |release: &Release| {
        let new = plugin.with_extension("new");
        release.write_to(&new);
        fs::rename(new, &plugin).unwrap();
    };
    fs::create_dir(flow::plugin_folder(&redis)).unwrap();
    deploy(&a);
    let launch = flow::launch(&redis).arg("--log-format", "text").arg("--http", "127.0.0.1:0");
    let launch = launch.arg("--heartbeat-interval", "500ms").arg("--probation-time", "10m");
    let host = launch.ready(&redis, 4);
    let mut browser = showing(&host);
    let traffic = Traffic::start(&redis, 500, json!({}));
    traffic.wait_for_more(500);

    // What the page shows lies between what was in Redis before the look and after it.
    let before = redis.length(OUTPUT);
    let shows = format!("Number(document.querySelector('#now-results').innerText.replaceAll(',', '')) >= {before}");
    browser.wait_for("the results of this moment", &shows);
    let shown = number(&mut browser, "#now-results");
    assert!((before..=redis.length(OUTPUT)).contains(&shown), "{shown}");
    browser.wait_for("a rate", "Number(document.querySelector('#now-rate').innerText.replaceAll(',', '')) > 0");
    for (figure, count) in [("#now-hosts", 1), ("#now-consumers", 4), ("#now-dead", 0)] {
        assert_eq!(number(&mut browser, figure), count, "{figure}");
    }
    let ids = redis.consumer_ids();
    let id = ids[0].rsplit_once('/').unwrap().0;
    wait_for_text(&mut browser, "#hosts", id);
    wait_for_text(&mut browser, "#hosts", &a.digest[..12]);
    for consumer in &ids {
        wait_for_text(&mut browser, "#consumers", consumer);
    }

    deploy(&b);
    wait_for_text(&mut browser, "#changes", &format!("swapped\t{}\t{}", &b.digest[..12], &a.digest[..12]));
    wait_for_text(&mut browser, "#hosts", "on probation");
    deploy(&bad);
    wait_for_text(&mut browser, "#changes", "rolled back");
    wait_for_text(&mut browser, "#hosts", &format!("{}\t4\trolled back", &a.digest[..12]));
    let labelled = "document.querySelector('#chart-throughput').getAttribute('aria-label')";
    browser.wait_for("both changes at the chart", &format!("/swapped, swapped, rolled back/.test({labelled})"));
    if std::env::var_os("DASHBOARD_PICTURE").is_some() {
        take_picture(&mut browser);
    }

    let published = traffic.finish().len();
    redis.wait_for_settled(published);
    let rests = format!("Number(document.querySelector('#now-results').innerText.replaceAll(',', '')) === {published}");
    browser.wait_for("all results", &rests);
    browser.wait_for("an empty inbox", "document.querySelector('#now-inbox').innerText === '0'");
    expect_clean(&browser, address(&host));
}

/// Writes the picture of the handbook.
fn take_picture(browser: &mut Browser) {
    browser.wait_for("a time line that is worth a picture", "performance.now() > 50000");
    let picture = unbase64(&browser.picture());
    fs::write(repository().join("host/docs/dashboard.png"), picture).expect("write the picture");
}

fn unbase64(text: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<usize> = text.chars().filter_map(|digit| DIGITS.find(digit)).collect();
    let groups = digits.chunks(4).flat_map(|group| {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        [16, 8, 0]
            .into_iter()
            .take(group.len() - 1)
            .map(move |shift| u8::try_from(bits >> shift & 0xff).expect("8 bits"))
    });
    groups.collect()
}

#[test]
fn a_dead_letter_is_shown_and_replayed_by_click() {
    let redis = Redis::start();
    let first = Host::on(&redis).arg("--max-attempts", "1").ready(&redis, 1);
    Publisher::new(&redis).publish(message("later", json!({"do": "succeed-at", "attempt": 2, "delay_ms": 0})));
    redis.dead_letter_of("later");
    first.stop();
    let host = listening(&redis).ready(&redis, 1);
    dead_letter(&redis, "hopeless", "too old");
    let mut browser = showing(&host);
    wait_for_text(&mut browser, "#dead-letters", "later");
    wait_for_text(&mut browser, "#dead-letters", "too old");
    browser.wait_for("the number", "document.querySelector('#now-dead').innerText === '2'");

    browser.click("[aria-label='Show hopeless']");
    wait_for_text(&mut browser, "#letter", "too old");
    let payload: Value = serde_json::from_str(&browser.text("#letter-payload")).unwrap();
    assert_eq!((&payload["message_id"], &payload["reason"]), (&json!("hopeless"), &json!("too old")));
    browser.click("#letter-close");

    browser.click("[aria-label='Replay later']");
    wait_for_text(&mut browser, "#confirm", "Replay later?");
    browser.press("Escape");
    browser.wait_for("no dialog", "!document.querySelector('dialog[open]')");
    assert_eq!(redis.length(DEAD), 2, "who says no replays nothing");
    browser.click("[aria-label='Replay later']");
    browser.click("#confirm-yes");
    redis.result_of("later");
    wait_for_text(&mut browser, "#done", "1 dead letter replayed");
    browser.wait_for("the rest", "document.querySelector('#dead-letters').rows.length === 1");
    browser.click("[aria-label='Purge hopeless']");
    browser.click("#confirm-yes");
    browser.wait_for("none", "document.querySelector('#now-dead').innerText === '0'");
    assert_eq!(redis.length(DEAD), 0);
    expect_clean(&browser, address(&host));
}

#[test]
fn an_answer_belongs_to_the_question_that_was_asked() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    dead_letter(&redis, "kept", "too old");
    dead_letter(&redis, "purged", "too old");
    let mut browser = showing(&host);
    wait_for_text(&mut browser, "#dead-letters", "kept");
    wait_for_text(&mut browser, "#dead-letters", "purged");
    // All in one step of the page, so that no event can come between.
    browser.evaluate(
        "const press = (selector) => document.querySelector(selector).click(); press(\"[aria-label='Purge kept']\"); \
         press('#confirm [value=no]'); press(\"[aria-label='Purge purged']\"); press('#confirm-yes')",
    );
    wait_for_text(&mut browser, "#done", "1 dead letter purged");
    browser.wait_for("the rest", "document.querySelector('#dead-letters').rows.length === 1");
    assert_eq!(browser.requested().iter().filter(|url| url.ends_with("/purge")).count(), 1);
    redis.dead_letter_of("kept");
    assert_eq!(redis.length(DEAD), 1);
    expect_clean(&browser, address(&host));
}

#[test]
fn what_messages_say_is_text_and_never_markup() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let mut browser = showing(&host);
    let markup = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    browser.click("#tail-go");
    wait_for_text(&mut browser, "#tail-state", "Waits");
    dead_letter(&redis, markup, markup);
    Publisher::new(&redis).publish(message("m", json!({"note": markup})));
    wait_for_text(&mut browser, "#dead-letters", markup);
    wait_for_text(&mut browser, "#tail", markup);
    wait_for_text(&mut browser, "#tail", "result m");
    browser.click("#dead-letters button");
    wait_for_text(&mut browser, "#letter-payload", markup);
    assert_eq!(browser.evaluate("document.querySelectorAll('img, main script, dialog script').length"), 0);
    expect_clean(&browser, address(&host));
}

#[test]
fn a_wrong_token_is_refused_and_the_right_one_is_kept_for_the_tab() {
    let redis = Redis::start();
    let host = listening(&redis).env("HOST_HTTP_TOKEN", TOKEN).ready(&redis, 1);
    let mut browser = Browser::start();
    let url = format!("http://{}/", address(&host));
    browser.open(&url);
    browser.wait_for("a field with the focus", "document.activeElement.id === 'token'");
    assert_eq!(browser.axe(), [""; 0]);
    browser.write("a wrong one");
    browser.press("Enter");
    wait_for_text(&mut browser, "#entry-problem", "not the token");
    browser.wait_for("the field again", "document.activeElement.id === 'token' && !document.activeElement.value");
    browser.write(TOKEN);
    browser.press("Enter");
    browser.wait_for("fresh figures", FRESH);
    browser.open(&url);
    browser.wait_for("figures without another question", FRESH);
    assert_eq!(
        browser.evaluate("document.querySelector('#entry').hidden && Object.keys(localStorage).length === 0"),
        true
    );
    let refused = browser.complaints();
    assert!(refused.iter().all(|complaint| complaint.to_string().contains("401")), "{refused:#?}");
    assert!(browser.requested().iter().all(|asked| asked.starts_with(&url) && !asked.contains(TOKEN)));
    browser.click("#forget");
    browser.wait_for("the question again", "document.activeElement.id === 'token'");
}

#[test]
fn the_page_says_when_the_connection_is_lost_and_how_old_its_figures_are() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let address = address(&host);
    let mut browser = showing(&host);
    wait_for_text(&mut browser, "#connection", "Connected");
    host.signal(Signal::Stop);
    wait_for_text(&mut browser, "#age", "old");
    host.signal(Signal::Continue);
    browser.wait_for("fresh figures", FRESH);
    host.kill();
    wait_for_text(&mut browser, "#connection", "lost");
    wait_for_text(&mut browser, "#age", "old");
    let _host = listening(&redis).arg("--http", address.to_string()).ready(&redis, 1);
    wait_for_text(&mut browser, "#connection", "Connected");
    browser.wait_for("fresh figures", FRESH);
}

#[test]
fn commands_ask_first_and_go_to_the_host() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 2);
    let address = address(&host);
    let mut browser = showing(&host);
    let paused = || Request::get("/api/v1/status").send(address).json()["paused"].clone();
    wait_for_text(&mut browser, "#own-work", "processes");
    tab_to(&mut browser, "do-pause");
    browser.press("Enter");
    browser.wait_for("a question", "document.querySelector('#confirm').open");
    browser.wait_for("the safe answer first", "document.activeElement.innerText === 'Cancel'");
    browser.press("Enter");
    browser.wait_for("no question", "!document.querySelector('#confirm').open");
    assert_eq!(paused(), false);
    browser.wait_for("the focus where it was", "document.activeElement.id === 'do-pause'");
    browser.press("Enter");
    browser.wait_for("the question again", "document.activeElement.innerText === 'Cancel'");
    browser.press("Tab");
    browser.press("Enter");
    wait_for_text(&mut browser, "#own-work", "paused");
    assert_eq!(paused(), true);
    assert!(!browser.text("#done").is_empty());
    browser.click("#do-resume");
    browser.click("#confirm-yes");
    wait_for_text(&mut browser, "#own-work", "processes");

    browser.evaluate("document.querySelector('#consumers-wanted').select()");
    browser.write("3");
    browser.press("Enter");
    wait_for_text(&mut browser, "#confirm", "3 consumers");
    browser.click("#confirm-yes");
    redis.wait_for_consumers(3);
    browser.wait_for("the new number", "document.querySelector('#now-consumers').innerText === '3'");
    wait_until("the commands in the log", || host.log().contains("127.0.0.1"));
    expect_clean(&browser, address);
}

/// Presses Tab until this element has the focus.
fn tab_to(browser: &mut Browser, id: &str) {
    for _ in 0..100 {
        browser.press("Tab");
        if browser.evaluate("document.activeElement.id") == id {
            return;
        }
    }
    panic!("the key Tab does not lead to {id}");
}

#[test]
fn everything_is_reached_by_keyboard_and_axe_finds_nothing() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 2);
    let entry = dead_letter(&redis, "m", "too old");
    let mut browser = showing(&host);
    wait_for_text(&mut browser, "#dead-letters", "too old");
    wait_for_text(&mut browser, "#own-work", "processes");
    browser.evaluate(
        "window.reached = new Set(); document.addEventListener('focusin', (event) => reached.add(event.target)); \
         window.wanted = [...document.querySelectorAll('button, input, select, a, [tabindex=\"0\"]')].filter((it) => \
         !it.disabled && it.checkVisibility()); 0",
    );
    let count = browser.evaluate("wanted.length").as_u64().unwrap();
    assert!(count > 20, "{count}");
    for _ in 0..count + 5 {
        browser.press("Tab");
    }
    let missed = browser.evaluate("wanted.filter((it) => !reached.has(it)).map((it) => it.outerHTML)");
    assert_eq!(missed, json!([]));

    for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
        browser.size(width, 900);
        browser.prefer(scheme);
        browser.wait_for("fresh figures", FRESH);
        assert_eq!(browser.axe(), [""; 0], "{width} {scheme}");
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.evaluate(fits), true, "no sideways scrolling at {width}");
    }
    browser.click("[aria-label='Show m']");
    wait_for_text(&mut browser, "#letter", &entry);
    assert_eq!(browser.axe(), [""; 0]);
    browser.press("Escape");
    browser.click("#do-reload");
    browser.wait_for("a question", "document.querySelector('#confirm').open");
    assert_eq!(browser.axe(), [""; 0]);
    expect_clean(&browser, address(&host));
}
