package remoting

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// TLSProblem is what prevents a TLS connection, and what to do about it.
type TLSProblem string

// The problems. The text follows the peer's address and names the fields of rocketmq.Config and the environment variables.
const (
	UnknownAuthority TLSProblem = "presents a certificate that no trusted authority has signed; set RootCAs of rocketmq.Config.TLS " +
		"(ROCKETMQ_TLS_CA) to the authority of its certificate, or give it one of a trusted authority"
	WrongName TLSProblem = "presents a certificate for another name; set ServerName of rocketmq.Config.TLS (ROCKETMQ_TLS_SERVER_NAME) " +
		"to a name in its certificate, or give it one with this address"
	Expired            TLSProblem = "presents a certificate that has expired or is not valid yet; renew it, and check the clocks"
	InvalidCertificate TLSProblem = "presents a certificate that can't be verified; give it another one"
	ClientCertificate  TLSProblem = "refuses the client's certificate, or that there is none; set Certificates of rocketmq.Config.TLS " +
		"(ROCKETMQ_TLS_CERT, ROCKETMQ_TLS_KEY) to a valid one of an authority that the server trusts"
	HandshakeRefused TLSProblem = "and the client can't agree on a TLS connection; check versions and cipher suites of both, " +
		"and whether the server requires a client certificate"
	NoTLS       TLSProblem = "takes no TLS connections; enable TLS there (tls.server.mode), or leave rocketmq.Config.TLS (ROCKETMQ_TLS_CA, …) unset"
	TLSRequired TLSProblem = "takes TLS connections only; set rocketmq.Config.TLS (ROCKETMQ_TLS_CA, …)"
)

// TLSError is the error of a connection that can't be made until someone changes a certificate or a setting. An error that
// wraps one also matches broker.ErrUnavailable.
type TLSError struct {
	Address string
	Problem TLSProblem
	Err     error // the cause
}

// Error names the address, the problem and the cause.
func (e *TLSError) Error() string {
	return fmt.Sprintf("%s %s: %s", e.Address, e.Problem, printable.Line(e.Err.Error(), printable.Reason))
}

// Unwrap returns the cause.
func (e *TLSError) Unwrap() error { return e.Err }

// Limits of the connections by which Explain finds the cause of a failure.
const (
	probeTimeout = time.Second
	alertTimeout = 500 * time.Millisecond
)

// DialTLS is Dial over TLS. Without a ServerName in config the certificate must be for the host in address. A nil config means
// no TLS. The error of a handshake that can't succeed wraps a *TLSError.
func DialTLS(ctx context.Context, address string, config *tls.Config, keys Credentials, handler Handler) (*Conn, error) {
	nc, err := connect(ctx, address, config)
	if err != nil && config != nil {
		err = explainHandshake(ctx, address, config, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: connect to %s: %w", broker.ErrUnavailable, address, err)
	}
	c := NewConn(nc, keys, handler)
	c.dialled, c.tls = address, config
	return c, nil
}

// connect makes a connection and, with a config, its handshake.
func connect(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil || config == nil {
		return nc, err
	}
	if config.ServerName == "" {
		config = config.Clone()
		if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
			nc.Close()
			return nil, err
		}
	}
	c := tls.Client(nc, config)
	if err := c.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// Explain returns err, the error of a Call. If the connection ended before the first response because of TLS, it returns an
// error that wraps a *TLSError: a server that refuses the client's certificate does so after the handshake, and one that expects
// TLS, or doesn't, closes the connection without a response. To tell these from a server that has gone, Explain makes connections of its own,
// without sending anything but a request for a route. ctx bounds that, as does a time of some seconds.
func (c *Conn) Explain(ctx context.Context, err error) error {
	cause := c.Err()
	if err == nil || cause == nil || errors.Is(cause, ErrClosed) || c.responded.Load() || c.dialled == "" {
		return err
	}
	explained := &TLSError{Address: c.dialled, Err: cause}
	switch {
	case c.tls == nil:
		if !speaksTLS(ctx, c.dialled) || speaksPlaintext(ctx, c.dialled) {
			return err
		}
		explained.Problem = TLSRequired
	default:
		explained.Problem = tlsProblem(cause)
		if explained.Problem == "" {
			alert := awaitAlert(ctx, c.dialled, c.tls)
			if explained.Problem = tlsProblem(alert); explained.Problem == "" {
				return err
			}
			explained.Err = alert
		}
	}
	return fmt.Errorf("%w: connection to %s: %w", broker.ErrUnavailable, c.dialled, explained)
}

// explainHandshake returns a *TLSError for the error of a connect that can't succeed, else err.
func explainHandshake(ctx context.Context, address string, config *tls.Config, err error) error {
	if problem := tlsProblem(err); problem != "" {
		if problem == HandshakeRefused && requestsCertificate(ctx, address, config) {
			problem = ClientCertificate
		}
		return &TLSError{Address: address, Problem: problem, Err: err}
	}
	if !isNetworkError(err) { // such as that of a function in config
		return &TLSError{Address: address, Problem: HandshakeRefused, Err: err}
	}
	// A server without TLS closes the connection, and so does one that is just stopped. Only the former responds to a request without TLS
	// and closes again.
	if ctx.Err() == nil && speaksPlaintext(ctx, address) {
		again, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		nc, err := connect(again, address, config)
		if err == nil {
			nc.Close()
		} else if again.Err() == nil {
			return &TLSError{Address: address, Problem: NoTLS, Err: err}
		}
	}
	return err
}

// requestsCertificate reports whether a server requests a certificate of the client. Before TLS 1.3 the alert of one that gets none
// doesn't say so.
func requestsCertificate(ctx context.Context, address string, config *tls.Config) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	requested := false
	config = config.Clone()
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		requested = true
		return new(tls.Certificate), nil
	}
	if nc, err := connect(ctx, address, config); err == nil {
		nc.Close()
	}
	return requested
}

// tlsProblem returns what an error of a TLS connection shows, or "" for what may pass by itself.
func tlsProblem(err error) TLSProblem {
	var (
		invalid      x509.CertificateInvalidError
		name         x509.HostnameError
		authority    x509.UnknownAuthorityError
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
		operation    *net.OpError
	)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Expired
	case errors.As(err, &name):
		return WrongName
	case errors.As(err, &authority):
		return UnknownAuthority
	case errors.As(err, &verification):
		return InvalidCertificate
	case errors.As(err, &record):
		return NoTLS
	case errors.As(err, &operation) && operation.Op == "remote error":
		return alertProblem(operation.Err.Error())
	case isNetworkError(err) || errors.Is(err, ErrClosed) || errors.Is(err, ErrMalformed):
		return ""
	case strings.HasPrefix(err.Error(), "tls: "): // such as a version that the client doesn't want
		return HandshakeRefused
	}
	return ""
}

// alertProblem returns what an alert of the peer shows. crypto/tls exports the text of alerts only.
func alertProblem(alert string) TLSProblem {
	switch strings.TrimPrefix(alert, "tls: ") {
	case "certificate required", "bad certificate", "unknown certificate", "unknown certificate authority", "unsupported certificate",
		"expired certificate", "revoked certificate", "access denied":
		return ClientCertificate
	case "handshake failure", "protocol version not supported", "insufficient security level", "unrecognized name", "no application protocol":
		return HandshakeRefused
	}
	return ""
}

func isNetworkError(err error) bool {
	return errors.As(err, new(*net.OpError)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// speaksTLS reports whether a server answers a TLS handshake.
func speaksTLS(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	nc, err := connect(ctx, address, &tls.Config{InsecureSkipVerify: true}) // nothing is sent on this connection
	if err == nil {
		nc.Close()
		return true
	}
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error" // it refuses by an alert
}

// speaksPlaintext reports whether a server responds to a request without TLS.
func speaksPlaintext(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := Dial(ctx, address, Credentials{}, nil)
	if err != nil {
		return false
	}
	defer conn.Close()
	response, _ := conn.Call(ctx, &Command{Code: RouteOfTopic, Ext: map[string]string{"topic": DefaultTopic}}) // a refusal is a response, too
	return response != nil
}

// awaitAlert makes a TLS connection and returns the error with which the server ends it, or nil if it doesn't within alertTimeout.
// The error of a connection that is also written to may be the write's, which hides the alert.
func awaitAlert(ctx context.Context, address string, config *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	nc, err := connect(ctx, address, config)
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := nc.SetReadDeadline(time.Now().Add(alertTimeout)); err != nil {
		return err
	}
	_, err = nc.Read(make([]byte, 1))
	return err
}
