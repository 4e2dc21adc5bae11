package trunkline

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func TestAKeyThatIsNoHeaderIsRefusedWithoutRepeatingIt(t *testing.T) {
	for _, bad := range []string{"", key + "\n", key + " ", key + "é"} {
		_, err := NewClient("127.0.0.1:1", WithAPIKey(bad))

		if !errors.Is(err, ErrArgument) || strings.Contains(err.Error(), key) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestAHeaderThatIsNoneIsRefusedWithoutRepeatingIt(t *testing.T) {
	for _, header := range [][2]string{
		{"bad name", "x"},
		{"", "x"},
		{"grpc-timeout", "1S"},
		{"Authorization", "Bearer " + key},
		{"x-text", key + "\n"},
		{"x-text", key + "é"},
	} {
		option := WithHeader(header[0], header[1])
		_, atOnce := NewClient("127.0.0.1:1", option)
		client := closing(t)(NewClient("127.0.0.1:1", WithAPIKey(key)))
		_, later := client.Complete(t.Context(), Prompt("Hi"), option)

		for _, err := range []error{atOnce, later} {
			if !errors.Is(err, ErrArgument) || strings.Contains(err.Error(), key) {
				t.Errorf("%q: %v", header, err)
			}
		}
	}
}

func TestBytesGoUnderANameThatSaysSo(t *testing.T) {
	closing(t)(NewClient("127.0.0.1:1", WithHeader("X-Blob-Bin", "\x00\xff")))
}

func TestARequestIDIsCheckedBeforeAnythingIsSent(t *testing.T) {
	client := closing(t)(NewClient("127.0.0.1:1"))

	for _, id := range []string{"short", "with space", strings.Repeat("x", 65), "request-1\n"} {
		if _, err := client.GetModel(t.Context(), "m", WithRequestID(id)); !errors.Is(err, ErrArgument) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestAKeyForTLSIsNotSentWithoutIt(t *testing.T) {
	plaintext := WithDialOptions(grpc.WithTransportCredentials(insecure.NewCredentials()))

	_, err := NewClient("gateway.example:50051", WithAPIKey(key), WithTLS(nil), plaintext)

	if !errors.Is(err, ErrArgument) {
		t.Error(err)
	}
}

func TestWhatIsPrintedHasNoKey(t *testing.T) {
	client := closing(t)(NewClient("127.0.0.1:1", WithAPIKey(key), WithHeader("x-secret", key)))

	var printed string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		printed += fmt.Sprintf(verb, client) + fmt.Sprintf(verb, *client) + fmt.Sprintf(verb, client.Channel())
	}
	printed += fmt.Sprintf("%+v %#v", WithAPIKey(key), WithHeader("x-secret", key))

	if strings.Contains(printed, key) {
		t.Error(printed)
	}
}
