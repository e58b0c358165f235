//! Which brackets are open where an object or an array is passed: without a stack, however deep it is.

use super::{Fault, MAX_DEPTH};

const TOO_DEEP: Fault = Fault("its JSON is broken: it is nested too deep");

/// The brackets that are open: a bit each, whether it is an object.
#[derive(Default)]
pub(super) struct Brackets {
    innermost: u128,
    depth: usize,
    /// Those beyond 128, by the 128.
    outer: Vec<u128>,
}

impl Brackets {
    const WORD: usize = u128::BITS as usize;

    pub(super) fn push(&mut self, is_object: bool) -> Result<(), Fault> {
        if self.depth == MAX_DEPTH {
            return Err(TOO_DEEP);
        }
        if self.depth > 0 && self.depth.is_multiple_of(Self::WORD) {
            self.outer.push(self.innermost);
        }
        self.innermost = self.innermost << 1 | u128::from(is_object);
        self.depth += 1;
        Ok(())
    }

    pub(super) fn pop(&mut self) {
        self.innermost >>= 1;
        self.depth -= 1;
        if self.depth > 0 && self.depth.is_multiple_of(Self::WORD) {
            self.innermost = self.outer.pop().unwrap_or_default();
        }
    }

    pub(super) fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.innermost & 1 == 1)
    }
}
