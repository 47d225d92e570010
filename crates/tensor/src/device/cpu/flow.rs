//! Weights that are brought from their file just before they are used, by a thread of its own, and dropped after.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::packed::PackedWeight;
use crate::program::Slot;

/// Weights in the order in which they are used, round after round. Some come to stay in the first round; of the others
/// about a window is in memory.
#[derive(Debug)]
pub(super) struct Flow {
    shared: Arc<Shared>,
    places: HashMap<Slot, usize>,
    reader: Option<JoinHandle<()>>,
}

/// A weight, and whether it stays once it was brought.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) slot: Slot,
    pub(super) weight: PackedWeight,
    pub(super) stays: bool,
}

#[derive(Debug)]
struct Shared {
    items: Vec<Item>,
    window: usize,
    /// Whether what is dropped leaves the page cache as well.
    evicts: bool,
    state: Mutex<State>,
    changed: Condvar,
}

/// Weights are counted through all rounds: weight `i` of round `r` is `r · n + i`.
#[derive(Debug, Default)]
struct State {
    /// Those before it were brought.
    fetched: usize,
    /// Those before it were used or passed over, and dropped.
    used: usize,
    /// Those before it are waited for.
    wanted: usize,
    /// Bytes of those brought and not yet dropped.
    bytes: usize,
    /// Whether no more are needed.
    stop: bool,
}

impl Flow {
    /// Start to bring `items`, about `window` bytes of those that do not stay at a time.
    ///
    /// A page cache that cannot hold them until the next round would only push out what is needed sooner: then what
    /// is dropped leaves it at once.
    pub(super) fn new(items: Vec<Item>, window: usize) -> std::io::Result<Self> {
        let places = items.iter().map(|item| item.slot.clone()).zip(0..).collect();
        let (state, changed) = (Mutex::default(), Condvar::new());
        let all: usize = items.iter().map(|item| item.weight.form().bytes()).sum();
        let evicts = os::available_memory().is_some_and(|free| free < all as u64);
        let shared = Arc::new(Shared { items, window, evicts, state, changed });
        let of_reader = Arc::clone(&shared);
        let reader = std::thread::Builder::new().name("weights".into());
        let reader = Some(reader.spawn(move || of_reader.read())?);
        Ok(Self { shared, places, reader })
    }

    /// Whether these weights come from here.
    pub(super) fn has_all(&self, mut slots: impl Iterator<Item = Slot>) -> bool {
        slots.all(|slot| self.places.contains_key(&slot))
    }

    /// Whether what is dropped leaves the page cache as well.
    pub(super) fn evicts(&self) -> bool {
        self.shared.evicts
    }

    /// Wait until those of these weights that come from here are in memory.
    pub(super) fn need<'s>(&self, slots: impl Iterator<Item = &'s Slot>) {
        let Some((first, last)) = self.extent(slots) else { return };
        let Shared { items, changed, .. } = &*self.shared;
        let mut state = self.shared.lock();
        let round = state.used / items.len();
        let again = usize::from(first < state.used % items.len());
        let start = (round + again) * items.len();
        // A program that reads fewer weights, or one that was interrupted, passes over the others.
        self.shared.drop_until(&mut state, start + first);
        state.wanted = start + last + 1;
        changed.notify_all();
        while state.fetched < state.wanted {
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Drop those of these weights that do not stay.
    pub(super) fn done<'s>(&self, slots: impl Iterator<Item = &'s Slot>) {
        if self.extent(slots).is_some() {
            let mut state = self.shared.lock();
            let until = state.wanted;
            self.shared.drop_until(&mut state, until);
            self.shared.changed.notify_all();
        }
    }

    /// The first and the last of these weights.
    fn extent<'s>(&self, slots: impl Iterator<Item = &'s Slot>) -> Option<(usize, usize)> {
        let places = slots.filter_map(|slot| self.places.get(slot).copied());
        places.fold(None, |extent, at| {
            let (first, last) = extent.unwrap_or((at, at));
            Some((first.min(at), last.max(at)))
        })
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(reader) = self.reader.take() {
            // A reader cannot fail but by a fault of this file, which its own message tells.
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn item(&self, count: usize) -> &Item {
        &self.items[count % self.items.len()]
    }

    /// Bytes that a weight takes of the window.
    fn bytes(&self, count: usize) -> usize {
        let item = self.item(count);
        if item.stays { 0 } else { item.weight.form().bytes() }
    }

    /// Bring a weight, unless it came earlier to stay.
    fn fetch(&self, count: usize) {
        let item = self.item(count);
        if !item.stays || count < self.items.len() {
            item.weight.fetch();
        }
    }

    fn drop_pages(&self, count: usize) {
        let item = self.item(count);
        match (item.stays, self.evicts) {
            (true, _) => {}
            (false, true) => item.weight.evict(),
            (false, false) => item.weight.drop_pages(),
        }
    }

    /// Bring weights for as long as there is room, or as one is waited for.
    fn read(&self) {
        let mut state = self.lock();
        loop {
            state.fetched = state.fetched.max(state.used);
            let next = state.fetched;
            let has_room = state.bytes + self.bytes(next) <= self.window;
            if state.stop {
                return;
            }
            if !has_room && next >= state.wanted {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            self.fetch(next);
            state = self.lock();
            if state.used > next {
                // It was passed over in the meantime.
                self.drop_pages(next);
                state.fetched = state.used;
            } else {
                state.bytes += self.bytes(next);
                state.fetched = next + 1;
            }
            self.changed.notify_all();
        }
    }

    /// Drop what lies before `until`; what was not brought yet will not be.
    fn drop_until(&self, state: &mut State, until: usize) {
        for count in state.used..until.min(state.fetched) {
            self.drop_pages(count);
            state.bytes -= self.bytes(count);
        }
        state.used = state.used.max(until);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use os::Mapping;

    use super::{Flow, Item};
    use crate::Weight;
    use crate::file::view::Bytes;
    use crate::file::{Checkpoint, TensorView};
    use crate::packed::{Form, Kind, PackedWeight, Part};
    use crate::program::{Packing, Slot};

    const COUNT: usize = 5;
    const BYTES: usize = 3 * 4096;

    /// Weights that lie one after the other in a file.
    fn items() -> Vec<Item> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let numbers: Vec<f32> = (0..COUNT * BYTES / 4).map(|i| i as f32).collect();
        std::fs::write(file.path(), bytemuck::cast_slice::<f32, u8>(&numbers)).unwrap();
        let mapping = Arc::new(Mapping::open(file.path()).unwrap());
        let names: Vec<String> = (0..COUNT).map(|i| format!("{i}.weight")).collect();
        let views = names.iter().map(|name| (name.clone(), TensorView::from_f32(&[1], &[0.0])));
        let source = Checkpoint::from_views("example", views.collect::<Vec<_>>());
        let one = |i: usize| {
            let form = Form { shape: vec![BYTES / 4], kind: Kind::Vector };
            let range = i * BYTES..(i + 1) * BYTES;
            let bytes = Bytes::Mapped { mapping: Arc::clone(&mapping), range };
            let weight = Weight::new(&source, &names[i], &[1]);
            let slot = Slot { weight, packing: Packing::Vector };
            let weight = PackedWeight::new(form, vec![(Part::Values, bytes)]);
            Item { slot, weight, stays: false }
        };
        (0..COUNT).map(one).collect()
    }

    #[test]
    fn any_order_is_served_within_the_window() {
        let mut items = items();
        for window in [0, BYTES, 2 * BYTES, 10 * BYTES] {
            items[3].stays = window == BYTES;
            let flow = Flow::new(items.clone(), window).unwrap();
            // In order, some left out, interrupted and begun again, several at once, none that flows.
            for of_step in [&[0][..], &[1], &[2, 3], &[4], &[0], &[3], &[1], &[], &[4], &[0, 4]] {
                let slots = || of_step.iter().map(|i: &usize| &items[*i].slot);
                flow.need(slots());
                let most = window.max(of_step.len().max(COUNT) * BYTES);
                assert!(flow.shared.lock().bytes <= most);
                for i in of_step {
                    let numbers = items[*i].weight.vector().unwrap();
                    assert_eq!(numbers[0], (i * BYTES / 4) as f32);
                }
                flow.done(slots());
            }
        }
    }

    #[test]
    fn no_more_is_brought_than_the_window_holds() {
        let items = items();
        let flow = Flow::new(items.clone(), 2 * BYTES).unwrap();
        for round in 0..20 {
            let slot = || std::iter::once(&items[round % COUNT].slot);
            flow.need(slot());
            assert!(flow.shared.lock().bytes <= 2 * BYTES);
            flow.done(slot());
        }
    }
}
