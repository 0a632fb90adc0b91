//! Doubly linked lists over key numbers, each key in one list at most.

const NONE: u32 = u32::MAX;

/// The links of all keys; several lists can share them.
pub struct Links {
    colder: Vec<u32>,
    hotter: Vec<u32>,
}

/// Ends of one list.
pub struct List {
    coldest: u32,
    hottest: u32,
    pub bytes: u64,
    pub len: usize,
}

impl Links {
    pub fn new(keys: usize) -> Links {
        Links { colder: vec![NONE; keys], hotter: vec![NONE; keys] }
    }

    pub fn hotter(&self, key: u32) -> Option<u32> {
        Some(self.hotter[key as usize]).filter(|key| *key != NONE)
    }
}

impl Default for List {
    fn default() -> List {
        List { coldest: NONE, hottest: NONE, bytes: 0, len: 0 }
    }
}

impl List {
    pub fn coldest(&self) -> Option<u32> {
        Some(self.coldest).filter(|key| *key != NONE)
    }

    pub fn push_hot(&mut self, links: &mut Links, key: u32, size: u32) {
        links.colder[key as usize] = self.hottest;
        links.hotter[key as usize] = NONE;
        match self.hottest {
            NONE => self.coldest = key,
            hottest => links.hotter[hottest as usize] = key,
        }
        self.hottest = key;
        self.bytes += u64::from(size);
        self.len += 1;
    }

    pub fn remove(&mut self, links: &mut Links, key: u32, size: u32) {
        let (colder, hotter) = (links.colder[key as usize], links.hotter[key as usize]);
        match colder {
            NONE => self.coldest = hotter,
            colder => links.hotter[colder as usize] = hotter,
        }
        match hotter {
            NONE => self.hottest = colder,
            hotter => links.colder[hotter as usize] = colder,
        }
        self.bytes -= u64::from(size);
        self.len -= 1;
    }
}
