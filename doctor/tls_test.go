package doctor

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testcert"
)

// A RocketMQ with TLS is examined over TLS; without it, or with another authority, it is not known, and the reason is named.
func TestTLS(t *testing.T) {
	t.Parallel()
	authority := testcert.NewAuthority(t)
	certificate := authority.Issue(t, testcert.Leaf{Names: []string{"127.0.0.1"}})
	for name, want := range map[string]struct {
		tls    *tls.Config
		status Status
		says   string
	}{
		"right":           {&tls.Config{RootCAs: authority.Pool()}, OK, "half messages are taken"},
		"none":            {nil, Unknown, "TLS"},
		"other authority": {&tls.Config{RootCAs: testcert.NewAuthority(t).Pool()}, Unknown, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{T: t, config: Config{Only: []string{"broker-transactions"}}}
			w.broker(rocketmqtest.Config{TLS: &tls.Config{Certificates: []tls.Certificate{certificate.TLS(t)}}})
			w.config.Broker.TLS = want.tls
			r := w.examine().Results
			if len(r) != 1 || r[0].Status != want.status || !strings.Contains(r[0].Observed, want.says) {
				t.Errorf("got %+v", r)
			}
		})
	}
}
