package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

var (
	loginCommand  = command{name: "login", summary: "remember a console and an API token for it", run: func(ctx context.Context, args []string) error { return newTerminal().login(ctx, args) }}
	logoutCommand = command{name: "logout", summary: "forget them", run: func(_ context.Context, args []string) error { return newTerminal().logout(args) }}
)

// kept is what login keeps.
type kept struct {
	URL   string `json:"url"`
	Token string `json:"token,omitempty"`
}

// loginFile is in the user's configuration directory.
func (t *terminal) loginFile() (string, error) {
	dir := t.env("XDG_CONFIG_HOME")
	if dir == "" {
		home := t.env("HOME")
		if home == "" {
			return "", errors.New("neither XDG_CONFIG_HOME nor HOME is set: use SIGNALBOX_URL and SIGNALBOX_TOKEN")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "signalbox", "login.json"), nil
}

// loadLogin reads what login kept; nothing when there is none. A file that
// others can read is refused: its token is no secret any more.
func (t *terminal) loadLogin() (k kept, err error) {
	path, err := t.loginFile()
	if err != nil {
		return kept{}, nil //nolint:nilerr // no home, nothing kept: the environment or the default holds
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, nil
	}
	if err != nil {
		return kept{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return kept{}, exit{exitDenied, fmt.Errorf("%s can be read by others (mode %04o), so its token may be known: revoke it, then run `signalbox login` again", path, info.Mode().Perm())}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return kept{}, err
	}
	if err := json.Unmarshal(raw, &k); err != nil {
		return kept{}, fmt.Errorf("%s: %w: run `signalbox login` again", path, err)
	}
	return k, nil
}

// saveLogin writes the file beside the old one first, so that no moment has
// half of it.
func (t *terminal) saveLogin(k kept) (string, error) {
	path, err := t.loginFile()
	if err != nil {
		return "", err
	}
	raw, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".login-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(append(raw, '\n'))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // what failed is told already
		return "", err
	}
	return path, nil
}

func (t *terminal) login(ctx context.Context, args []string) error {
	flags := t.verb("login", "[URL] [flags]", `
Remembers a console's address and an API token for it, in login.json of your configuration directory, readable by you alone. Make the token on the
console's page Settings. It is asked for without being shown, or read from standard input with --token-stdin; never give it as an argument, where
other users of this machine can see it. SIGNALBOX_URL and SIGNALBOX_TOKEN go before what is remembered.`)
	fromStdin := flags.Bool("token-stdin", false, "read the token from standard input")
	rest, err := flags.parse(args)
	if err != nil {
		return err
	}
	address := defaultConsole
	switch {
	case len(rest) > 1:
		return fmt.Errorf("%w: want one address, have %q", errUsage, rest)
	case len(rest) == 1:
		address = rest[0]
	case t.env("SIGNALBOX_URL") != "":
		address = t.env("SIGNALBOX_URL")
	}
	base, err := consoleURL(address)
	if err != nil {
		return err
	}
	k := kept{URL: base.String()}
	if *fromStdin {
		if k.Token, err = readToken(t.in); err != nil {
			return err
		}
	}
	var who api.Whoami
	try := func() error {
		ask := *t
		ask.env = func(name string) string { // what is remembered from before does not count
			return map[string]string{"SIGNALBOX_URL": k.URL, "SIGNALBOX_TOKEN": k.Token}[name]
		}
		c, err := ask.connect("")
		if err != nil {
			return err
		}
		_, err = c.get(ctx, "/whoami", nil, &who)
		return err
	}
	err = try()
	var e exit
	if errors.As(err, &e) && e.code == exitDenied && k.Token == "" {
		if k.Token, err = t.promptToken(base.String()); err != nil {
			return err
		}
		err = try()
	}
	if err != nil {
		return err
	}
	path, err := t.saveLogin(k)
	if err != nil {
		return err
	}
	if k.Token == "" {
		t.note("%s wants nobody to sign in. Its address is kept in %s.", k.URL, path)
	} else {
		t.note("Signed in to %s as %s. Address and token are kept in %s.", k.URL, component.Visible(who.Name), path)
	}
	return nil
}

// readToken takes one line.
func readToken(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	token := strings.TrimSpace(line)
	if token == "" || component.Visible(token) != token || strings.ContainsAny(token, " \t") {
		return "", fmt.Errorf("%w: want a token of one word on standard input", errUsage)
	}
	return token, nil
}

func (t *terminal) promptToken(at string) (string, error) {
	f, ok := t.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", exit{exitDenied, fmt.Errorf("%s wants a token: give it on standard input with --token-stdin", at)}
	}
	fmt.Fprintf(t.err, "Token for %s: ", at)
	raw, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(t.err)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return readToken(strings.NewReader(string(raw)))
}

func (t *terminal) logout(args []string) error {
	flags := t.verb("logout", "", "Forgets the console and the token that login remembered. The token itself stays good until it expires or is revoked on the page Settings.")
	rest, err := flags.parse(args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: logout takes no argument %q", errUsage, rest[0])
	}
	path, err := t.loginFile()
	if err != nil {
		return err
	}
	switch err := os.Remove(path); {
	case errors.Is(err, fs.ErrNotExist):
		t.note("Nothing was remembered.")
	case err != nil:
		return err
	default:
		t.note("Forgotten. Revoke the token on the console's page Settings if it is not needed any more.")
	}
	return nil
}
