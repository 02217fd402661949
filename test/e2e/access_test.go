package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	"github.com/signalbox-dev/signalbox/test/program"
)

// certificate writes a certificate for this machine and returns who trusts it.
func certificate(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signalbox test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1")}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{certFile: public, keyFile: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(public)
	return pool
}

// visitor is a browser without script.
type visitor struct {
	t    *testing.T
	base string
	http *http.Client
}

func newVisitor(t *testing.T, base string, trust *x509.CertPool) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust}}
	t.Cleanup(tr.CloseIdleConnections)
	return &visitor{t, base, &http.Client{Jar: jar, Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// ask sends a form, or gets a page where there is none.
func (p *visitor) ask(path string, form url.Values) (*http.Response, string) {
	p.t.Helper()
	var resp *http.Response
	var err error
	if form == nil {
		resp, err = p.http.Get(p.base + path)
	} else {
		resp, err = p.http.PostForm(p.base+path, form)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp, string(body)
}

func (p *visitor) want(status int, path string, form url.Values) string {
	p.t.Helper()
	resp, body := p.ask(path, form)
	if resp.StatusCode != status {
		p.t.Fatalf("%s: got %s, want %d: %.600s", path, resp.Status, status, body)
	}
	return body
}

func scrape(t *testing.T, pattern, body string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(body)
	if m == nil {
		t.Fatalf("nothing fits %s in %.2000s", pattern, body)
	}
	return m[len(m)-1]
}

// TestNewcomerOverTLS installs a console that asks for everything: the link of
// the first start, an agent that enrols, a second user with a part of the
// rights, and that user's open live tap, which ends with them.
func TestNewcomerOverTLS(t *testing.T) {
	enginetest.Require(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return at(name)
	}
	trust := certificate(t, at("tls.crt"), at("tls.key"))
	console := program.Start(t, program.Console, nil, "serve", "--config", write("console.yaml", fmt.Sprintf(
		"listen: 127.0.0.1:0\nlisten_grpc: \"\"\ndata_dir: %s\ntls: {cert_file: %s, key_file: %s}\naccess: {agents: token}\n", at("console"), at("tls.crt"), at("tls.key"))))
	link := await(t, console, `(https://\S+)/setup\?token=(\S+)`)
	base, token := link[1], link[2]

	ada := newVisitor(t, base, trust)
	resp, _ := ada.ask("/messages?q=x", nil)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/login?next=%2Fmessages%3Fq%3Dx" || resp.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("without a session: got %s, %v", resp.Status, resp.Header)
	}
	const password = "four words in a row"
	ada.want(http.StatusSeeOther, "/setup", url.Values{"token": {token}, "name": {"ada"}, "password": {password}, "again": {password}})
	where, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	if all := ada.http.Jar.Cookies(where); len(all) != 1 || all[0].Name != "__Host-signalbox" {
		t.Errorf("cookies over TLS: got %v", all)
	}
	ada.want(http.StatusOK, "/", nil)
	newVisitor(t, base, trust).want(http.StatusNotFound, "/setup", url.Values{"token": {token}, "name": {"eve"}, "password": {password}, "again": {password}})

	// Nobody sends without a credential; an agent gets its own.
	if resp, err := ada.http.Post(base+"/v1/logs", "application/json", strings.NewReader("{}")); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("OTLP with a person's cookie: got %v, %v; want 401", resp, err)
	} else {
		_ = resp.Body.Close()
	}
	page := ada.want(http.StatusOK, "/settings/agents", url.Values{"name": {"site"}, "count": {"1"}, "env": {"prod*"}, "life": {"24h"}})
	agent := program.Start(t, program.Agent, nil, "--config", write("agent.yaml", fmt.Sprintf(
		"agent: {id: site-1, env: production, data_dir: %s}\nconsole: {url: %s, report_interval: 500ms, ca_file: %s, enrolment_token_file: %s}\n",
		at("agent"), base, at("tls.crt"), write("enrolment", scrape(t, `sbxe_[0-9A-Za-z]{49}`, page)))))
	await(t, agent, `"msg":"enrolled"`)
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(ada.want(http.StatusOK, "/api/v1/agents", nil), `"site-1"`) {
		if time.Now().After(deadline) {
			t.Fatalf("the agent that enrolled is not heard from:\n%s", agent.Output())
		}
		time.Sleep(100 * time.Millisecond)
	}

	// A second user, for one environment, and a program of theirs.
	page = ada.want(http.StatusOK, "/settings/users", url.Values{"name": {"mara"}, "role": {"viewer"}, "env": {"production"}, "channel": {"*"}})
	mara := newVisitor(t, base, trust)
	mara.want(http.StatusSeeOther, "/password", url.Values{"token": {scrape(t, `/password\?token=([A-Z2-7]{26})`, page)}, "password": {password}, "again": {password}})
	mara.want(http.StatusOK, "/channels", nil)
	mara.want(http.StatusForbidden, "/settings/users", nil)
	page = mara.want(http.StatusOK, "/settings/tokens", url.Values{"name": {"tail"}, "role": {"viewer"}, "env": {"production"}, "channel": {"*"}, "life": {"24h"}})
	secret := scrape(t, `sbx_[0-9A-Za-z]{49}`, page)
	if _, body := mara.ask("/settings/tokens", url.Values{"name": {"more"}, "role": {"admin"}, "env": {"*"}, "channel": {"*"}, "life": {"24h"}}); strings.Contains(body, "sbx_") && !strings.Contains(body, "more than you may") {
		t.Error("a viewer made a token of an administrator")
	}

	// Two open taps: the browser's, and the program's.
	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: trust}, HandshakeTimeout: 10 * time.Second}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	open := func(what string, h http.Header) *websocket.Conn {
		t.Helper()
		conn, resp, err := dialer.DialContext(ctx, "wss"+strings.TrimPrefix(base, "https")+"/api/v1/live?env=production", h)
		if err != nil {
			t.Fatalf("%s: %v, %v", what, err, resp)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	var cookies []string
	for _, c := range mara.http.Jar.Cookies(where) {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	taps := map[string]*websocket.Conn{
		"browser": open("browser", http.Header{"Origin": {base}, "Cookie": {strings.Join(cookies, "; ")}}),
		"program": open("program", http.Header{"Authorization": {"Bearer " + secret}}),
	}
	user := scrape(t, `href="(/settings/users/[0-9a-f]+)"[^>]*>mara<`, ada.want(http.StatusOK, "/settings/users", nil))
	began := time.Now()
	ada.want(http.StatusSeeOther, user+"/disable", url.Values{})
	for what, conn := range taps {
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var err error
		for err == nil {
			_, _, err = conn.ReadMessage()
		}
		var closed *websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != 4401 {
			t.Errorf("tap of the %s: ended with %v, want 4401", what, err)
		}
		t.Logf("the tap of the %s ended %v after its user was disabled: %v", what, time.Since(began).Round(time.Millisecond), err)
	}
	if resp, _ := mara.ask("/channels", nil); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("a disabled user's page: got %s", resp.Status)
	}
	audit := ada.want(http.StatusOK, "/audit", nil)
	for _, code := range []string{"setup.complete", "agent.enrol", "user.add", "auth.login", "token.create", "user.disable"} {
		if !strings.Contains(audit, code) {
			t.Errorf("the audit trail does not tell of %s", code)
		}
	}
	for what, s := range map[string]string{"password": password, "token": secret} {
		if strings.Contains(console.Output()+agent.Output()+audit, s) {
			t.Errorf("the %s is in the output of a program or in the audit trail", what)
		}
	}
}
