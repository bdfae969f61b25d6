//! What each job must write, computed by plain loops over the input that share nothing with the product.

use std::collections::HashMap;
use std::rc::Rc;

use super::output::{Expected, Table};

/// `wordcount`: maximal runs of ASCII letters and digits, lower-cased, with their counts.
pub fn wordcount(text: &[u8]) -> Expected {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut word = String::new();
    for &byte in text.iter().chain(b" ") {
        if byte.is_ascii_alphanumeric() {
            word.push(char::from(byte.to_ascii_lowercase()));
        } else if !word.is_empty() {
            *counts.entry(std::mem::take(&mut word)).or_insert(0) += 1;
        }
    }
    let mut table = Table::new("word,count");
    for (word, count) in counts {
        table.add(format!("{word},{count}"));
    }
    Expected([(String::new(), table)].into())
}

/// What `delays` keeps per route and per carrier.
#[derive(Default)]
struct Delays {
    flights: u64,
    cancelled: u64,
    arrivals: u64,
    sum: i64,
    max: Option<i64>,
}

impl Delays {
    fn add(&mut self, flight: &Flight<'_>) {
        self.flights += 1;
        self.cancelled += u64::from(flight.get("dep_time").is_none());
        if let Some(delay) = flight.get("arr_delay") {
            let delay: i64 = delay.parse().expect("a delay is a whole number of minutes");
            self.arrivals += 1;
            self.sum += delay;
            self.max = Some(self.max.map_or(delay, |max| max.max(delay)));
        }
    }

    fn row(&self, key: &str) -> String {
        let max = self.max.map_or(String::new(), |max| max.to_string());
        let mean =
            if self.arrivals == 0 { String::new() } else { hundredths(self.sum, self.arrivals as i64) };
        format!("{key},{},{},{},{mean},{max}", self.flights, self.cancelled, self.arrivals)
    }
}

/// `sum / count` with two decimals, halves away from zero.
fn hundredths(sum: i64, count: i64) -> String {
    let doubled = 2 * 100 * sum.abs() + count;
    let rounded = doubled / (2 * count);
    let sign = if sum < 0 && rounded > 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", rounded / 100, rounded % 100)
}

/// `delays`: figures per route under `routes`, per carrier under `carriers`.
pub fn delays(csv: &str) -> Expected {
    let mut routes: HashMap<String, Delays> = HashMap::new();
    let mut carriers: HashMap<String, Delays> = HashMap::new();
    for flight in flights(csv) {
        let text = |name| flight.get(name).unwrap_or_default();
        routes.entry(format!("{},{}", text("origin"), text("dest"))).or_default().add(&flight);
        carriers.entry(text("carrier").to_owned()).or_default().add(&flight);
    }
    let table = |header: &str, groups: HashMap<String, Delays>| {
        let mut table = Table::new(header);
        groups.iter().for_each(|(key, figures)| table.add(figures.row(key)));
        table
    };
    let figures = "flights,cancelled,arrivals,mean_delay,max_delay";
    Expected(
        [
            ("routes".to_owned(), table(&format!("origin,dest,{figures}"), routes)),
            ("carriers".to_owned(), table(&format!("carrier,{figures}"), carriers)),
        ]
        .into(),
    )
}

/// A row of a CSV text without quotes.
pub struct Flight<'a> {
    columns: Rc<[&'a str]>,
    fields: Vec<&'a str>,
}

impl<'a> Flight<'a> {
    /// The field of a column; nothing for `NA`.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let column = self.columns.iter().position(|column| *column == name).expect("the column exists");
        Some(self.fields[column]).filter(|field| *field != "NA")
    }
}

/// The rows of a CSV text without quotes.
pub fn flights(csv: &str) -> impl Iterator<Item = Flight<'_>> {
    let mut lines = csv.lines();
    let columns: Rc<[&str]> = lines.next().unwrap_or_default().split(',').collect();
    lines.map(move |line| Flight { columns: Rc::clone(&columns), fields: line.split(',').collect() })
}

/// `flights-clean`: every valid row, normalised.
pub fn flights_clean(csv: &str) -> Expected {
    let header = csv.lines().next().unwrap_or_default();
    let mut table = Table::new(header);
    csv.lines().skip(1).for_each(|line| table.add(line.to_owned()));
    Expected([(String::new(), table)].into())
}

/// The rows of the `count` routes of [`delays`] with the highest mean among those with at least `arrivals` known
/// arrivals, worst first, ties by airport.
pub fn worst(delays: &Expected, arrivals: u64, count: usize) -> Vec<String> {
    let parsed = |row: &String| {
        let fields: Vec<&str> = row.split(',').collect();
        let mean: i64 = fields[5].replace('.', "").parse().ok()?;
        let enough = fields[4].parse::<u64>().is_ok_and(|known| known >= arrivals);
        enough.then(|| (std::cmp::Reverse(mean), row.clone()))
    };
    let mut rows: Vec<_> = delays.0["routes"].rows.keys().filter_map(parsed).collect();
    rows.sort();
    rows.into_iter().take(count).map(|(_, row)| row).collect()
}

/// `keyed-sum`: record n is `(n mod keys, n)`; the sum of each key.
pub fn keyed_sum(records: u64, keys: u64) -> Expected {
    let mut sums = vec![0u64; keys as usize];
    for n in 0..records {
        sums[(n % keys) as usize] += n;
    }
    let mut table = Table::new("key,sum");
    (0..keys).zip(sums).for_each(|(key, sum)| table.add(format!("{key},{sum}")));
    Expected([(String::new(), table)].into())
}
