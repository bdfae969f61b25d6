//! The table of a driver's connections: fixed places, taken and vacated, each with a generation.
//!
//! Owned by the ring; what a connection is, the driver says. Always: vacant + occupied = places; memory of a place is made at its first use and then kept, so
//! what the kernel was given addresses of never moves.

use crate::ring::ConnId;

struct Place<C> {
    generation: u32,
    connection: Option<Box<C>>,
    occupied: bool,
}

pub(crate) struct Slab<C> {
    places: Box<[Place<C>]>,
    vacant: Vec<u32>,
}

impl<C> Slab<C> {
    pub(crate) fn new(places: u32) -> Self {
        let place = || Place { generation: 0, connection: None, occupied: false };
        // The lowest index is on top: dense ids are cheap for users with tables of their own.
        Self { places: (0..places).map(|_| place()).collect(), vacant: (0..places).rev().collect() }
    }

    pub(crate) fn places(&self) -> u32 {
        self.places.len() as u32
    }

    pub(crate) fn occupied(&self) -> u32 {
        self.places() - self.vacant.len() as u32
    }

    /// Takes a vacant place; `make` is for its first use.
    pub(crate) fn take(&mut self, make: fn() -> Box<C>) -> Option<(ConnId, &mut C)> {
        let index = self.vacant.pop()?;
        let place = &mut self.places[index as usize];
        place.occupied = true;
        let connection = place.connection.get_or_insert_with(make);
        Some((ConnId::new(index, place.generation), connection))
    }

    /// The connection in a place that `id` was given and that is not vacated.
    pub(crate) fn get(&mut self, id: ConnId) -> Option<&mut C> {
        let place = self.places.get_mut(id.index() as usize)?;
        if !place.occupied || place.generation != id.generation() {
            return None;
        }
        place.connection.as_deref_mut()
    }

    /// Ends the use of a place; `id` is void afterwards.
    pub(crate) fn vacate(&mut self, id: ConnId) {
        let place = &mut self.places[id.index() as usize];
        assert!(place.occupied && place.generation == id.generation(), "a place is vacated once");
        place.occupied = false;
        place.generation = place.generation.wrapping_add(1);
        self.vacant.push(id.index());
    }

    /// All occupied places.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut C)> {
        self.places.iter_mut().enumerate().filter(|(_, place)| place.occupied).filter_map(|(index, place)| {
            let id = ConnId::new(index as u32, place.generation);
            place.connection.as_deref_mut().map(|connection| (id, connection))
        })
    }
}
