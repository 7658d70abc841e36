//! Several measurements as a middle and a spread.

/// What several measurements of the same thing say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) mean: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Zeros for no measurements.
    pub(crate) fn of(measured: &[f64]) -> Self {
        let mut sorted = measured.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len().max(1);
        let at = |n: usize| sorted.get(n).copied().unwrap_or(0.0);
        Self {
            median: f64::midpoint(at((count - 1) / 2), at(count / 2)),
            mean: sorted.iter().sum::<f64>() / count as f64,
            least: at(0),
            most: at(count - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_lies_between_the_ends() {
        let cases: [(&[f64], [f64; 4]); 4] = [
            (&[], [0.0, 0.0, 0.0, 0.0]),
            (&[3.0], [3.0, 3.0, 3.0, 3.0]),
            (&[9.0, 1.0, 2.0], [2.0, 4.0, 1.0, 9.0]),
            (&[4.0, 1.0, 2.0, 9.0], [3.0, 4.0, 1.0, 9.0]),
        ];
        for (measured, [median, mean, least, most]) in cases {
            let expected = Spread {
                median,
                mean,
                least,
                most,
            };
            assert_eq!(Spread::of(measured), expected, "{measured:?}");
        }
    }
}
