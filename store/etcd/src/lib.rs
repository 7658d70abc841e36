//! The live store in etcd, behind [`store::Store`].
