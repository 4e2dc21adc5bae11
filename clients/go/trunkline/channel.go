package trunkline

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// What Trunkline publishes for its clients. The timeouts are upper bounds, beside the deadline of a call's context.
const serviceConfig = `{
	"methodConfig": [
		{
			"name": [
				{"service": "trunkline.v1.CompletionService", "method": "Complete"},
				{"service": "trunkline.v1.CompletionService", "method": "CompleteUnary"}
			],
			"timeout": "600s",
			"retryPolicy": {
				"maxAttempts": 3,
				"initialBackoff": "0.2s",
				"maxBackoff": "2s",
				"backoffMultiplier": 2,
				"retryableStatusCodes": ["UNAVAILABLE"]
			}
		},
		{
			"name": [{"service": "trunkline.v1.CatalogService"}],
			"timeout": "10s",
			"waitForReady": true,
			"retryPolicy": {
				"maxAttempts": 4,
				"initialBackoff": "0.1s",
				"maxBackoff": "1s",
				"backoffMultiplier": 2,
				"retryableStatusCodes": ["UNAVAILABLE"]
			}
		}
	],
	"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
	"healthCheckConfig": {"serviceName": "trunkline.v1.CompletionService"}
}`

const mib = 1 << 20

const defaultTimeout = 600 * time.Second

var (
	reservedHeader = regexp.MustCompile(`^(grpc-|authorization$)`)
	headerName     = regexp.MustCompile(`^[0-9a-z_.-]+$`)
	headerText     = regexp.MustCompile(`^[\x20-\x7e]*$`)
	keyText        = regexp.MustCompile(`^[\x21-\x7e]+$`)
	requestIDText  = regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`)
)

// settings are what the options of NewClient say.
type settings struct {
	apiKey           *string
	tls              *tls.Config
	allowInsecureKey bool
	defaultTimeout   time.Duration
	headers          metadata.MD
	dialOptions      []grpc.DialOption
}

// dial puts together what a channel is made of. Without a TLS configuration it speaks plaintext.
func (s *settings) dial(target string) (*channel, error) {
	options := []grpc.DialOption{
		grpc.WithUserAgent("trunkline-go/" + Version),
		// A service config in DNS, which grpc-go would look for, is not the gateway's.
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithResolvers(addressList("ipv4"), addressList("ipv6")),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(
			// The gateway takes 32 MiB, and its PAYLOAD_TOO_LARGE tells more than a limit here would.
			grpc.MaxCallSendMsgSize(math.MaxInt),
			grpc.MaxCallRecvMsgSize(64*mib),
			// A call whose request does not fit in here is never retried; gRPC's default is 256 KiB.
			grpc.MaxRetryRPCBufferSize(33*mib),
		),
	}
	if s.tls != nil {
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(s.tls)))
	} else {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if isLocal(target) {
			// A proxy of the environment's would carry the call, and the key, off this machine.
			options = append(options, grpc.WithNoProxy())
		} else if s.apiKey != nil && !s.allowInsecureKey {
			return nil, refused("the key would travel to %s in plaintext: use WithTLS, or say WithInsecureKey", target)
		}
	}
	if s.apiKey != nil {
		options = append(options, grpc.WithPerRPCCredentials(&bearer{*s.apiKey, s.tls != nil}))
	}
	conn, err := grpc.NewClient(target, append(options, s.dialOptions...)...)
	if err != nil {
		return nil, refused("%w", err)
	}
	closing, closeCalls := context.WithCancel(context.Background())
	return &channel{conn, closing, closeCalls, func() metadata.MD { return s.headers }, s.defaultTimeout}, nil
}

// bearer sends the key with each call. It is used by pointer, which is all of it that gets printed with a connection.
type bearer struct {
	key      string
	needsTLS bool
}

func (b *bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.key}, nil
}

// RequireTransportSecurity lets gRPC itself refuse a channel that lost its TLS, as by a dial option of the caller's.
func (b *bearer) RequireTransportSecurity() bool { return b.needsTLS }

// channel is a connection whose calls, of any generated stub, have the client's headers and deadline, and fail with this
// package's errors.
type channel struct {
	conn       *grpc.ClientConn
	closing    context.Context
	closeCalls context.CancelFunc
	headers    func() metadata.MD // A function, which prints as an address and no more.
	timeout    time.Duration
}

// Close ends the calls first: gRPC would let those that wait for another try wait to their end.
func (c *channel) Close() error {
	c.closeCalls()
	return c.conn.Close()
}

func (c *channel) Invoke(ctx context.Context, method string, args, reply any, options ...grpc.CallOption) error {
	ctx, cancel := c.begin(ctx)
	defer cancel()
	var header, trailer metadata.MD
	err := c.conn.Invoke(ctx, method, args, reply, append(slices.Clip(options), grpc.Header(&header), grpc.Trailer(&trailer))...)
	return sendingFailed(args, translated(err, header, trailer))
}

func (c *channel) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, cancel := c.begin(ctx)
	call := &streamCall{cancel: cancel}
	stream, err := c.conn.NewStream(ctx, desc, method, append(slices.Clip(options), grpc.Header(&call.header), grpc.Trailer(&call.trailer))...)
	if err != nil {
		cancel()
		return nil, translated(err, call.header, call.trailer)
	}
	call.ClientStream = stream
	return call, nil
}

// begin gives a call its headers, and the default deadline where it has none of its own.
func (c *channel) begin(ctx context.Context) (context.Context, context.CancelFunc) {
	if headers := c.headers(); len(headers) > 0 {
		own, _ := metadata.FromOutgoingContext(ctx)
		ctx = metadata.NewOutgoingContext(ctx, metadata.Join(headers, own))
	}
	var cancel context.CancelFunc
	if _, ok := ctx.Deadline(); ok {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
	}
	forget := context.AfterFunc(c.closing, cancel)
	context.AfterFunc(ctx, func() { forget() })
	return ctx, cancel
}

// streamCall is one streaming RPC.
type streamCall struct {
	grpc.ClientStream
	cancel          context.CancelFunc
	header, trailer metadata.MD
}

func (s *streamCall) SendMsg(message any) error {
	err := s.ClientStream.SendMsg(message)
	if err == nil || err == io.EOF {
		return err
	}
	s.cancel()
	return sendingFailed(message, translated(err, nil, nil))
}

func (s *streamCall) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	if err == nil {
		return nil
	}
	s.cancel()
	if err == io.EOF {
		return err
	}
	return translated(err, s.header, s.trailer)
}

// sendingFailed tells a request that cannot be sent from what the gateway fails with: both are INTERNAL to gRPC.
func sendingFailed(request any, err error) error {
	if message, ok := request.(proto.Message); ok && errors.Is(err, ErrInternal) {
		if _, unsendable := proto.Marshal(message); unsendable != nil {
			return refused("%w", unsendable)
		}
	}
	return err
}

// setHeader puts a header among those of a client or a call, in place of one of the same name. gRPC would refuse a bad
// one too, but in words that repeat it.
func setHeader(headers metadata.MD, name, value string) error {
	name = strings.ToLower(name)
	switch {
	case !headerName.MatchString(name) || reservedHeader.MatchString(name):
		// As a header, "authorization" would pass by the check for plaintext.
		return refused("%q cannot be sent as a header; a key is given by WithAPIKey", name)
	case !strings.HasSuffix(name, "-bin") && !headerText.MatchString(value):
		return refused("%s: only printable ASCII can be sent, and bytes under a name that ends with -bin", name)
	}
	headers.Set(name, value)
	return nil
}
