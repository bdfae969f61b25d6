//! Loops for the processor at hand: the compiler makes them once for every x86-64, and once for those with AVX2 and BMI2
//! (nearly all since 2013), where one instruction works on eight 32-bit numbers. Stateless.

/// A loop to be run by [`wide`].
pub trait Loop {
    /// What comes out of it.
    type Out;

    /// Runs it. Must be `#[inline(always)]`, and so must what matters of what it calls: else it is compiled once only.
    fn run(self) -> Self::Out;
}

/// Runs a loop, compiled for wide vectors where the processor has them. To ask for the processor's features takes a load and
/// a branch.
#[inline]
pub fn wide<L: Loop>(work: L) -> L::Out {
    #[cfg(target_arch = "x86_64")]
    if is_wide() {
        // SAFETY: rule 6.
        return unsafe { with_avx2(work) };
    }
    work.run()
}

/// Whether the processor has what [`with_avx2`] is compiled for.
#[cfg(target_arch = "x86_64")]
#[inline]
fn is_wide() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("bmi1") && has!("bmi2")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn with_avx2<L: Loop>(work: L) -> L::Out {
    work.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight times the number of each place, in a way that vectors are good for.
    struct Eightfold<'a>(&'a mut [u32]);

    impl Loop for Eightfold<'_> {
        type Out = usize;

        #[inline(always)]
        fn run(self) -> usize {
            self.0.iter_mut().for_each(|place| *place = place.wrapping_mul(8));
            self.0.len()
        }
    }

    #[test]
    fn a_loop_does_the_same_either_way() {
        let numbers: Vec<u32> = (0..1_003).map(|number: u32| number.wrapping_mul(0x9e37_79b9)).collect();
        let (mut chosen, mut plain) = (numbers.clone(), numbers.clone());
        assert_eq!(wide(Eightfold(&mut chosen)), Eightfold(&mut plain).run());
        assert_eq!(chosen, plain);
        #[cfg(target_arch = "x86_64")]
        if is_wide() {
            let mut wide = numbers;
            // SAFETY: rule 6.
            unsafe { with_avx2(Eightfold(&mut wide)) };
            assert_eq!(wide, plain);
        } else {
            println!("skipped: this processor has no AVX2 or BMI");
        }
    }
}
