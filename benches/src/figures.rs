//! Samples to figures, and figures to lines with their goals.

/// On which side of its goal a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum At {
    /// The goal or less.
    Most,
    /// The goal or more.
    Least,
}

/// A new group of figures.
pub(crate) fn heading(text: &str) {
    println!("\n{text}");
}

/// A figure that has a goal.
pub(crate) fn goal(name: &str, value: f64, goal: f64, at: At, unit: &str) {
    let (sign, met) = match at {
        At::Most => ("<=", value <= goal),
        At::Least => (">=", value >= goal),
    };
    let verdict = if met { "met" } else { "MISSED" };
    println!("  {name:<58} {:>12} {unit:<10} goal {sign} {}  {verdict}", shown(value), shown(goal));
}

/// A figure without one.
pub(crate) fn figure(name: &str, value: f64, unit: &str) {
    println!("  {name:<58} {:>12} {unit}", shown(value));
}

/// A sentence beside figures.
pub(crate) fn note(text: &str) {
    println!("    {text}");
}

fn shown(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// Samples of one quantity.
#[derive(Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, sample: f64) {
        self.0.push(sample);
    }

    pub(crate) fn join(&mut self, others: Samples) {
        self.0.extend(others.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    /// The sample below which that many of a thousand lie; 0 where there is none.
    pub(crate) fn at(&self, per_mille: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((sorted.len() * per_mille / 1000).min(last)).copied().unwrap_or(0.0)
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(500)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.at(990)
    }

    /// The median of the ratios, sample by sample in the order in which they were taken.
    pub(crate) fn median_ratio_to(&self, other: &Samples) -> f64 {
        let mut ratios = Samples::default();
        for (ours, theirs) in self.0.iter().zip(&other.0) {
            if *theirs > 0.0 {
                ratios.add(ours / theirs);
            }
        }
        ratios.median()
    }
}
