//! A real browser without a window, driven over the DevTools protocol. The protocol goes through two pipes, which a shell puts
//! where the browser expects them; messages are JSON, each with a zero byte behind it.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{BOUND, repository, wait_for};

/// Names of programs that are a Chromium, in the order of preference.
const PROGRAMS: [&str; 6] = [
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// A browser with one page; ended on drop.
pub struct Browser {
    child: Child,
    requests: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    last_id: u64,
    session: Option<String>,
    _profile: TempDir,
}

/// What the browser has said.
#[derive(Default)]
struct Heard {
    answers: HashMap<u64, Value>,
    events: Vec<Value>,
}

impl Browser {
    /// A browser with an empty page.
    pub fn start() -> Browser {
        let profile = TempDir::new().expect("a folder for the browser");
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null"#, "sh"]).arg(program());
        // Its own sandbox needs rights that containers and root do not have; the only pages are those of the tests.
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]);
        // Whoever asks for another host gets nothing.
        command.args(["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        command.env("HOME", profile.path()).env("LANG", "en_US.UTF-8").env("TZ", "UTC");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("start a shell");
        let requests = child.stdin.take();
        let heard = Arc::<Mutex<Heard>>::default();
        listen(BufReader::new(child.stdout.take().expect("a pipe")), heard.clone());
        let mut browser = Browser { child, requests, heard, last_id: 0, session: None, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1280, 1000);
        browser
    }

    /// Opens this address.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        self.wait_for("the end of loading", "document.readyState === 'complete' && location.protocol === 'http:'");
    }

    /// Asks the browser for something, and gives its answer.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.ask(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Result<Value, String> {
        self.last_id += 1;
        let id = self.last_id;
        let mut request = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(0);
        self.requests.as_mut().expect("an open pipe").write_all(&bytes).expect("write to the browser");
        let answer = wait_for(&format!("the browser's answer to {method}"), BOUND, || {
            self.heard.lock().expect("no panic").answers.remove(&id).ok_or_else(|| "none".to_owned())
        });
        if answer["error"].is_null() { Ok(answer["result"].clone()) } else { Err(answer.to_string()) }
    }

    /// The value of an expression in the page; promises are awaited.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        self.value(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    fn value(&mut self, expression: &str) -> Result<Value, String> {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.ask("Runtime.evaluate", parameters)?;
        if result["exceptionDetails"].is_null() {
            Ok(result["result"]["value"].clone())
        } else {
            Err(result.to_string())
        }
    }

    /// Waits until an expression is true, also through the loading of another page.
    pub fn wait_for(&mut self, what: &str, expression: &str) {
        wait_for(what, BOUND, || match self.value(&format!("Boolean({expression})")) {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(_) => Err(self.value("document.body.innerText").map_or_else(|error| error, |text| text.to_string())),
            Err(error) => Err(error),
        });
    }

    /// The visible text of an element.
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.evaluate(&format!("document.querySelector({}).innerText", json!(selector)));
        text.as_str().unwrap_or_else(|| panic!("no text in {selector}")).to_owned()
    }

    /// Clicks into the middle of an element, as a mouse does.
    pub fn click(&mut self, selector: &str) {
        let find = format!(
            "(() => {{ const it = document.querySelector({}); it.scrollIntoView({{ block: 'center' }}); \
             const {{ x, y, width, height }} = it.getBoundingClientRect(); return [x + width / 2, y + height / 2]; }})()",
            json!(selector)
        );
        let place = self.evaluate(&find);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Presses a key, such as `Tab`.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, None),
            "Enter" => (13, Some("\r")),
            "Escape" => (27, None),
            "Space" => (32, Some(" ")),
            _ => panic!("an unknown key {key}"),
        };
        let name = if key == "Space" { " " } else { key };
        let mut event = json!({"type": "keyDown", "key": name, "code": key, "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code});
        if let Some(text) = text {
            event["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", event.clone());
        event["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", event);
    }

    /// Types into the element that has the focus.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// The size of the page in CSS pixels.
    pub fn size(&mut self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// The colours that the user prefers: `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// A picture of what is visible, as base64 of a PNG.
    pub fn picture(&mut self) -> String {
        self.call("Page.captureScreenshot", json!({"format": "png"}))["data"].as_str().expect("a picture").to_owned()
    }

    /// Events with this name so far.
    pub fn events(&self, method: &str) -> Vec<Value> {
        let heard = self.heard.lock().expect("no panic");
        heard.events.iter().filter(|event| event["method"] == method).map(|event| event["params"].clone()).collect()
    }

    /// The addresses that the page has asked for.
    pub fn requested(&self) -> Vec<String> {
        let sent = self.events("Network.requestWillBeSent");
        sent.iter().map(|event| event["request"]["url"].as_str().expect("a URL").to_owned()).collect()
    }

    /// Errors and warnings in the console, errors of scripts, and violations of the content security policy.
    pub fn complaints(&self) -> Vec<Value> {
        let mut complaints = self.events("Runtime.exceptionThrown");
        complaints.extend(self.events("Runtime.consoleAPICalled"));
        complaints.extend(self.events("Log.entryAdded"));
        complaints.extend(self.events("Audits.issueAdded"));
        complaints
    }

    /// What axe-core finds wrong with the page as it is now: one line for each element.
    pub fn axe(&mut self) -> Vec<String> {
        self.evaluate(&format!("{}; 0", axe_script()));
        let run = "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.flatMap(({ id, nodes }) => \
                   nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`)))";
        let found = self.evaluate(run);
        let found = found.as_array().expect("a list of violations");
        found.iter().map(|line| line.as_str().expect("a text").to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with all its processes when its pipe is closed.
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}

fn listen(mut stream: BufReader<impl std::io::Read + Send + 'static>, heard: Arc<Mutex<Heard>>) {
    thread::spawn(move || {
        loop {
            let mut bytes = Vec::new();
            if stream.read_until(0, &mut bytes).is_err() || bytes.pop() != Some(0) {
                return;
            }
            let message: Value = serde_json::from_slice(&bytes).expect("JSON of the browser");
            let mut heard = heard.lock().expect("no panic");
            match message["id"].as_u64() {
                Some(id) => _ = heard.answers.insert(id, message),
                None => heard.events.push(message),
            }
        }
    });
}

/// The browser: what `CHROMIUM` names, or the first one on `PATH`.
fn program() -> PathBuf {
    if let Some(named) = env::var_os("CHROMIUM") {
        return named.into();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let found = PROGRAMS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    found
        .into_iter()
        .find(|program| program.is_file())
        .expect("the tests of the dashboard need a Chromium: run `just browser`, or set CHROMIUM to the path of one")
}

fn axe_script() -> &'static str {
    static SCRIPT: OnceLock<String> = OnceLock::new();
    SCRIPT.get_or_init(read_axe_script)
}

fn read_axe_script() -> String {
    let installed = Command::new("python3").arg(repository().join("tests/axe/install")).output().expect("run python3");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let path = String::from_utf8(installed.stdout).expect("a path");
    std::fs::read_to_string(Path::new(path.trim())).expect("read axe-core")
}
