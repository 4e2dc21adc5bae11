package trunkline

import (
	"cmp"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"google.golang.org/grpc/resolver"
)

// isLocal says whether every address of a gRPC target stays on this machine. Of names only localhost does.
func isLocal(target string) bool {
	addresses := []string{target}
	scheme, rest, _ := strings.Cut(target, ":")
	switch scheme {
	case "unix", "unix-abstract":
		return true
	case "ipv4", "ipv6":
		addresses = addressesOf(rest)
	case "dns":
		// With an authority a name server is asked, and who knows what it answers.
		addresses[0] = strings.TrimPrefix(rest, "///")
	}
	for _, address := range addresses {
		if !isLoopback(hostOf(address)) {
			return false
		}
	}
	return true
}

// addressesOf splits what follows the scheme of an ipv4: or ipv6: target.
func addressesOf(rest string) []string {
	if unescaped, err := url.PathUnescape(rest); err == nil {
		rest = unescaped
	}
	return strings.Split(strings.TrimLeft(rest, "/"), ",")
}

// Nothing that may be read as another part of an address: no path, query, user or escape.
var plainAddress = regexp.MustCompile(
	`^(?:\[([0-9A-Fa-f:.]+)\](?::\d+)?|([^\s:/?#@%\[\]\\]+)(?::\d+)?|([0-9A-Fa-f.]*:[0-9A-Fa-f:.]+))$`)

// hostOf is the host of "host:port", "[v6]:port", or of an address without a port; empty of anything else.
func hostOf(address string) string {
	found := plainAddress.FindStringSubmatch(address)
	if found == nil {
		return ""
	}
	return cmp.Or(found[1:]...)
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

// addressList resolves the ipv4: and ipv6: targets that other gRPC libraries know and grpc-go does not: addresses with
// ports, tried in order. Its value is the scheme.
type addressList string

func (l addressList) Scheme() string { return string(l) }

func (l addressList) Build(target resolver.Target, conn resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	var state resolver.State
	for _, address := range addressesOf(target.Endpoint()) {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
	}
	return l, conn.UpdateState(state)
}

func (addressList) ResolveNow(resolver.ResolveNowOptions) {}
func (addressList) Close()                                {}
