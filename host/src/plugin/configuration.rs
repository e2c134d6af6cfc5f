//! A plugin's own configuration as its instances read it, through `wasi:config`. It knows no key and writes no value
//! to the log.

use super::bindings::wasi::config::store::{Error, Host};
use super::instance::State;

impl Host for State {
    fn get(&mut self, key: String) -> Result<Option<String>, Error> {
        Ok(self.configuration.get(&key).map(str::to_owned))
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, Error> {
        Ok(self.configuration.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}
