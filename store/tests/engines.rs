//! Every engine is put through the conformance suite.

mod memory {
    use std::sync::Arc;
    use store::conformance::Fixture;
    use store::memory::MemoryStore;

    fn fresh() -> Fixture {
        Fixture {
            store: Arc::new(MemoryStore::new()),
            alone: true,
            keep: Box::new(()),
        }
    }

    store::conformance_tests!(super::fresh);
}

mod sqlite {
    use std::sync::Arc;
    use store::conformance::Fixture;
    use store::sqlite::SqliteStore;

    fn fresh() -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        Fixture {
            store: Arc::new(SqliteStore::open(folder.path()).expect("it opens")),
            alone: true,
            keep: Box::new(folder),
        }
    }

    store::conformance_tests!(super::fresh);
}

mod folder {
    use std::sync::Arc;
    use store::{BlobStore, FolderBlobs};

    fn fresh() -> Option<(Arc<dyn BlobStore>, tempfile::TempDir)> {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = FolderBlobs::open(folder.path().join("blobs")).expect("it opens");
        Some((Arc::new(blobs), folder))
    }

    store::blob_conformance_tests!(fresh);
}
