package app_test

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testcert"
)

func TestTLSFromEnv(t *testing.T) {
	t.Parallel()
	authority := testcert.NewAuthority(t)
	dir := t.TempDir()
	ca, _ := authority.Files(t, dir, "ca")
	certificate, key := authority.Issue(t, testcert.Leaf{}).Files(t, dir, "client")

	if c, err := app.ConfigFromEnv("order", environment()); err != nil || c.RocketMQ.TLS != nil {
		t.Errorf("no variable: %v, %v", c.RocketMQ.TLS, err)
	}
	c, err := app.ConfigFromEnv("order", environment("ROCKETMQ_TLS_CA", ca, "ROCKETMQ_TLS_CERT", certificate, "ROCKETMQ_TLS_KEY", key, "ROCKETMQ_TLS_SERVER_NAME", "mq.example"))
	if err != nil {
		t.Fatal(err)
	}
	config := c.RocketMQ.TLS
	if c.RocketMQ.Transport != rocketmq.Own || config.ServerName != "mq.example" || !config.RootCAs.Equal(authority.Pool()) || config.InsecureSkipVerify {
		t.Errorf("got %+v", config)
	}
	for variable, value := range map[string]string{"ROCKETMQ_TLS_CA": "system", "ROCKETMQ_TLS_SERVER_NAME": "mq.example"} {
		c, err := app.TLSFromEnv(environment(variable, value))
		if err != nil || c == nil || c.RootCAs != nil || c.GetClientCertificate != nil {
			t.Errorf("%s=%s: %+v, %v", variable, value, c, err)
		}
	}

	// A renewed certificate is used for the next connection.
	before, err := config.GetClientCertificate(&tls.CertificateRequestInfo{})
	if err != nil {
		t.Fatal(err)
	}
	authority.Issue(t, testcert.Leaf{Expires: time.Now().Add(2 * time.Hour)}).Files(t, dir, "client")
	after, err := config.GetClientCertificate(&tls.CertificateRequestInfo{})
	if err != nil || !after.Leaf.NotAfter.After(before.Leaf.NotAfter) {
		t.Errorf("after a renewal: valid until %v, %v; before %v", after.Leaf.NotAfter, err, before.Leaf.NotAfter)
	}
}

// On a RocketMQ that requires TLS a service with the variables works, and one without doesn't wait for the broker: its start fails and
// says so.
func TestServiceOverTLS(t *testing.T) {
	t.Parallel()
	authority := testcert.NewAuthority(t)
	mq := testbroker.StartTLS(t, authority)
	dir := t.TempDir()
	ca, _ := authority.Files(t, dir, "ca")
	certificate, key := authority.Issue(t, testcert.Leaf{}).Files(t, dir, "client")
	env, err := app.ConfigFromEnv("shop", environment("ROCKETMQ_NAMESRV", mq.NameServer(), "ROCKETMQ_TLS_CA", ca, "ROCKETMQ_TLS_CERT", certificate, "ROCKETMQ_TLS_KEY", key))
	if err != nil {
		t.Fatal(err)
	}
	c := shop(t)
	c.RocketMQ = env.RocketMQ
	a, err := app.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, a)
	handled := make(chan string, 9)
	handlers.On(a.Router(), "shop", func(_ context.Context, tx rocketflow.Tx, p Placed) error {
		tx.AfterCommit(func() { handled <- p.ID })
		return nil
	})
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Outbox().Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, Placed{"o-1"}) }); err != nil {
		t.Fatal(err)
	}
	receive(t, handled, "o-1")

	c = shop(t)
	c.RocketMQ.NameServers = []string{mq.NameServer()}
	a, err = app.New(c)
	if err == nil {
		defer stop(t, a)
		err = a.Start(t.Context())
	}
	var field *rocketflow.FieldError
	if !errors.As(err, &field) || field.Field != "rocketmq.Config.TLS" || !strings.Contains(field.Reason, "takes TLS connections only") {
		t.Errorf("without TLS: %v", err)
	}
}

// What can't be used is an error that names the variable and the file.
func TestTLSFromEnvNamesVariableAndFile(t *testing.T) {
	t.Parallel()
	authority := testcert.NewAuthority(t)
	dir := t.TempDir()
	ca, _ := authority.Files(t, dir, "ca")
	certificate, key := authority.Issue(t, testcert.Leaf{}).Files(t, dir, "client")
	_, otherKey := authority.Issue(t, testcert.Leaf{}).Files(t, dir, "other")
	missing, text := filepath.Join(dir, "missing.pem"), filepath.Join(dir, "text.pem")
	broken := filepath.Join(dir, "broken.pem")
	for file, content := range map[string]string{text: "nothing", broken: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []struct{ variable, ca, certificate, key, file, reason string }{
		{"ROCKETMQ_TLS_CA", missing, "", "", missing, "can't be read: no such file"},
		{"ROCKETMQ_TLS_CA", dir, "", "", dir, "can't be read: is a directory"},
		{"ROCKETMQ_TLS_CA", text, "", "", text, "no certificate in PEM"},
		{"ROCKETMQ_TLS_CA", key, "", "", key, "no certificate in PEM"},
		{"ROCKETMQ_TLS_CA", broken, "", "", broken, "a certificate that can't be read"},
		{"ROCKETMQ_TLS_CERT", ca, missing, key, missing, "can't be read: no such file"},
		{"ROCKETMQ_TLS_CERT", ca, key, key, key, "no certificate in PEM"},
		{"ROCKETMQ_TLS_CERT", ca, broken, key, broken, "a certificate that can't be read"},
		{"ROCKETMQ_TLS_KEY", ca, certificate, missing, missing, "can't be read: no such file"},
		{"ROCKETMQ_TLS_KEY", ca, certificate, text, text, "not the key of the certificate in " + certificate},
		{"ROCKETMQ_TLS_KEY", ca, certificate, otherKey, otherKey, "not the key of the certificate in " + certificate},
		{"ROCKETMQ_TLS_CERT", ca, "", key, "", "not set, but ROCKETMQ_TLS_KEY is"},
		{"ROCKETMQ_TLS_KEY", ca, certificate, "", "", "not set, but ROCKETMQ_TLS_CERT is"},
	} {
		_, err := app.ConfigFromEnv("order", environment("ROCKETMQ_TLS_CA", bad.ca, "ROCKETMQ_TLS_CERT", bad.certificate, "ROCKETMQ_TLS_KEY", bad.key))
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || field.Field != bad.variable || !strings.Contains(field.Reason, bad.file) || !strings.Contains(field.Reason, bad.reason) {
			t.Errorf("want %s, %s: %s; got %v", bad.variable, bad.file, bad.reason, err)
		}
	}
}
