package trunkline

import (
	"errors"
	"strings"
	"testing"
)

const key = "sk-very-secret"

func TestAKeyDoesNotLeaveThisMachineInPlaintext(t *testing.T) {
	for _, target := range []string{
		"gateway.example:50051",
		"dns:///gateway.example:50051",
		"dns://127.0.0.1/gateway.example:50051",
		"passthrough:///127.0.0.1:50051",
		"10.0.0.1:50051",
		"[2001:db8::1]:50051",
		"ipv4:127.0.0.1:1,10.0.0.1:1",
		"localhost.example:50051",
		"127.0.0.1.example:50051",
		"127.1:50051",
		"",
	} {
		_, err := NewClient(target, WithAPIKey(key))

		if !errors.Is(err, ErrArgument) {
			t.Errorf("%q: %v", target, err)
		} else if strings.Contains(err.Error(), key) {
			t.Errorf("%q: the key is in %q", target, err)
		}
	}
}

func TestAKeyMayBeUsedOnThisMachine(t *testing.T) {
	for _, target := range []string{
		"127.0.0.1:50051",
		"127.8.8.8:50051",
		"localhost:50051",
		"LOCALHOST",
		"[::1]:50051",
		"::1",
		"dns:///localhost:50051",
		"ipv4:127.0.0.1:1,127.0.0.2:1",
		"ipv6:[::1]:50051",
		"ipv6:%5B::1%5D:50051",
		"unix:/run/trunkline.sock",
		"unix:///run/trunkline.sock",
		"unix-abstract:trunkline",
	} {
		closing(t)(NewClient(target, WithAPIKey(key)))
	}
}

func TestACallerMayInsist(t *testing.T) {
	closing(t)(NewClient("gateway.example:50051", WithAPIKey(key), WithInsecureKey()))
	closing(t)(NewClient("gateway.example:50051", WithAPIKey(key), WithTLS(nil)))
}

func TestWithoutAKeyPlaintextIsNobodysSecret(t *testing.T) {
	closing(t)(NewClient("gateway.example:50051"))
}

func closing(t *testing.T) func(*Client, error) *Client {
	return func(client *Client, err error) *Client {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		return client
	}
}
