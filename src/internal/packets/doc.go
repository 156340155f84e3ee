// Package packets decides what the containers of one bridge may reach: the internet, by IPv4 and IPv6, and nothing else. The host
// (by any of its addresses), the networks that it is in, private and special networks, the metadata address of a cloud and other
// containers are refused, but for the exceptions of the operator and the resolvers of the host.
//
// Three means, each for what the others cannot see:
//
//	container ──► bridge ──► another container     the ports of the bridge are isolated: no frame of any protocol passes,
//	                │                              whatever the sysctls bridge-nf-call-* say
//	                ├──► host                      chain input of the worker's own nftables table
//	                └──► forwarded elsewhere       chain forward of the same table
//
// The table belongs to the netlink socket that has made it (NFT_TABLE_F_OWNER): nobody else can change or delete it, `nft flush
// ruleset` passes over it, and it is gone when its process is. A second one, without an owner, holds while the containers of a
// killed process are still dying; it is deleted by Close, and replaced by whoever opens the rules next (docs/adr/0011-packets.md).
package packets
