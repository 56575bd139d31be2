/** Which IP addresses a fetch on behalf of a stranger may reach. */

import ipaddr from 'ipaddr.js';

/** What the operator allows beyond the public internet. */
export interface AddressPolicy {
  /** 127.0.0.0/8 and ::1. @default false */
  readonly allowLoopback?: boolean;
  /** RFC 1918, carrier-grade NAT and unique local addresses. Link-local ones stay refused. @default false */
  readonly allowPrivate?: boolean;
}

/** Metadata services of clouds inside ranges that `allowPrivate` opens; the one at 169.254.169.254 is link-local. */
const METADATA = ['fd00:ec2::254', 'fd20:ce::254', '100.100.100.200', '192.0.0.192'];

/** IPv6 outside this block is not assigned to anybody: an address there is a trick or a mistake. */
const GLOBAL_V6 = ipaddr.IPv6.parseCIDR('2000::/3');
/** NAT64: the last four bytes are the IPv4 address that will be reached. */
const NAT64 = ipaddr.IPv6.parseCIDR('64:ff9b::/96');

/**
 * Why an address may not be reached, as the end of a sentence ("is a private address"); undefined if it may be.
 * @param address as `net.isIP` accepts it
 */
export function refusedAddress(address: string, policy: AddressPolicy): string | undefined {
  // A zone ("fe80::1%eth0") only occurs with addresses that are refused anyway.
  if (!ipaddr.isValid(address)) return 'is not an IP address';
  const parsed = reached(ipaddr.parse(address));
  if (METADATA.some((metadata) => sameAddress(parsed, ipaddr.parse(metadata)))) return 'is a metadata address';
  const range = parsed.range();
  switch (range) {
    case 'unicast':
      return parsed instanceof ipaddr.IPv6 && !parsed.match(GLOBAL_V6) ? 'is not a public address' : undefined;
    case 'loopback':
      return policy.allowLoopback === true ? undefined : 'is a loopback address';
    case 'private':
    case 'uniqueLocal':
    case 'carrierGradeNat':
      return policy.allowPrivate === true ? undefined : 'is a private address';
    case 'linkLocal':
      return 'is a link-local address';
    default:
      // unspecified, broadcast, multicast, reserved, and every tunnel whose far end cannot be seen from here
      return 'is not a public address';
  }
}

type Address = ipaddr.IPv4 | ipaddr.IPv6;

/** The address that packets will arrive at: v4-mapped and NAT64 addresses stand for the IPv4 address inside. */
function reached(address: Address): Address {
  if (address instanceof ipaddr.IPv4) return address;
  if (address.isIPv4MappedAddress()) return address.toIPv4Address();
  return address.match(NAT64) ? new ipaddr.IPv4(address.toByteArray().slice(12)) : address;
}

function sameAddress(a: Address, b: Address): boolean {
  return a.toNormalizedString() === b.toNormalizedString();
}
