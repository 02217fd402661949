package engine

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// Serve is the child: it opens the data directory and answers until ctx ends,
// then lets running statements finish for as long as the grace lasts. A
// process can do this once, as the library cannot be started a second time.
func Serve(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	path, err := FindLibrary(cfg.Library)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("engine: data directory: %w", err)
	}
	lock, err := waitLockDir(ctx, dir, cfg.Grace)
	if err != nil {
		return err
	}
	defer lock.Close()
	socket, err := cfg.socketPath()
	if err != nil {
		return err
	}
	if socket, err = filepath.Abs(socket); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	// The engine takes a table it does not know for a file in the working
	// directory, so that is an empty one.
	empty := filepath.Join(dir, "empty")
	if err := errors.Join(os.MkdirAll(empty, 0o700), os.Chdir(empty)); err != nil {
		return fmt.Errorf("engine: working directory: %w", err)
	}

	begin := time.Now()
	e, err := boot(path, dir, cfg, log)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	defer e.close()

	// Holding the lock makes a socket that is already there a leftover.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("engine: remove the last run's socket: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("engine: listen: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return errors.Join(fmt.Errorf("engine: socket: %w", err), l.Close())
	}
	servers := map[net.Listener]http.Handler{l: e.handler(e.main, nil)}
	if cfg.TCPListen != "" {
		tcp, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.TCPListen)
		if err != nil {
			return errors.Join(fmt.Errorf("engine: listen: %w", err), l.Close())
		}
		servers[tcp] = e.handler(e.readers, e.guard)
		log.InfoContext(ctx, "read-only listener", "address", tcp.Addr().String())
	}
	log.InfoContext(ctx, "engine ready", "version", e.version, "data_dir", dir, "socket", socket, "took", time.Since(begin).Round(time.Millisecond).String()) // as text: a number would lose its unit on the way
	return serveAll(ctx, servers, cfg.Grace, log)
}

func serveAll(ctx context.Context, servers map[net.Listener]http.Handler, grace time.Duration, log *slog.Logger) error {
	g, gctx := errgroup.WithContext(ctx)
	// Statements outlive ctx: at shutdown they finish, and are cut off, through
	// this context, when the grace is over.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	for l, h := range servers {
		srv := &http.Server{
			Handler:           h,
			BaseContext:       func(net.Listener) context.Context { return base },
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       5 * time.Minute,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		}
		g.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("engine: serve: %w", err)
			}
			return nil
		})
		g.Go(func() error {
			<-gctx.Done()
			sctx, cancel := context.WithTimeout(base, grace)
			defer cancel()
			err := srv.Shutdown(sctx)
			if err != nil {
				log.Warn("statements still running after the grace are cut off", "grace", grace)
				cut()
				sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutOff)
				defer cancel()
				err = srv.Shutdown(sctx)
			}
			return err
		})
	}
	return g.Wait()
}

// cutOff is how long killed statements get to notice.
const cutOff = 5 * time.Second

// engineState is a booted engine with its pools.
type engineState struct {
	lib           *lib
	keeper        *killer // its connection keeps the engine alive while the pools are empty
	main, readers *pool
	guard         *guard
	version       string
	dir           string
	cfg           Config
	log           *slog.Logger
}

func boot(library, dir string, cfg Config, log *slog.Logger) (*engineState, error) {
	conf := filepath.Join(dir, "engine.xml")
	if err := os.WriteFile(conf, serverConfig(cfg), 0o600); err != nil {
		return nil, fmt.Errorf("write the engine's configuration: %w", err)
	}
	l, err := loadLibrary(library)
	if err != nil {
		return nil, err
	}
	l.setSignalHandlers(0) // Go's own handlers stay
	args := append([]string{"clickhouse", "--path=" + filepath.Join(dir, "clickhouse"), "--config-file=" + conf}, sessionArgs(cfg)...)
	c, err := l.open(args)
	if err != nil {
		return nil, err
	}
	e := &engineState{lib: l, keeper: &killer{conn: c}, dir: dir, cfg: cfg, log: log}
	r, err := c.query("SELECT version()", "TSVRaw", nil)
	if err != nil {
		c.close()
		return nil, err
	}
	e.version = string(trimLine(r.data()))
	r.free()
	if e.guard, err = newGuard(c, cfg.QueryTimeout); err != nil {
		c.close()
		return nil, err
	}
	e.main = newPool(l, args, cfg.Connections, cfg.QueueTimeout, e.keeper, log)
	e.readers = newPool(l, append(args, "--allow_introspection_functions=0", "--readonly=2"), max(1, cfg.Connections/2), cfg.QueueTimeout, e.keeper, log)
	return e, nil
}

func trimLine(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return b
}

func (e *engineState) close() {
	e.main.close()
	e.readers.close()
	e.keeper.conn.close()
}

func (e *engineState) handler(p *pool, g *guard) *handler {
	return &handler{pool: p, readOnly: g, version: e.version, dataDir: e.dir, reserve: e.cfg.DiskReserve, free: diskFree, log: e.log}
}

// sessionArgs are the settings every connection starts with.
func sessionArgs(cfg Config) []string {
	return []string{
		"--max_memory_usage=" + strconv.FormatInt(int64(cfg.QueryMemory), 10),
		// Rather slow on disk than refused for want of memory.
		"--max_bytes_before_external_group_by=" + strconv.FormatInt(int64(cfg.QueryMemory/2), 10),
		"--max_bytes_before_external_sort=" + strconv.FormatInt(int64(cfg.QueryMemory/2), 10),
		"--max_execution_time=" + strconv.FormatFloat(cfg.QueryTimeout.Seconds(), 'f', -1, 64),
		// Batching is the collector's, and so is the deduplication token.
		"--async_insert=0",
		// Text that is no statement is an error, not an expression to evaluate.
		"--implicit_select=0",
	}
}

// serverConfig caps what the engine would otherwise size to the host: it takes
// 90 % of the memory and a pool of threads for a large server.
func serverConfig(cfg Config) []byte {
	type entry struct {
		XMLName xml.Name
		Value   string `xml:",chardata"`
	}
	doc := struct {
		XMLName xml.Name `xml:"clickhouse"`
		Entries []entry
	}{}
	add := func(name string, v any) {
		doc.Entries = append(doc.Entries, entry{xml.Name{Local: name}, fmt.Sprint(v)})
	}
	merges := max(2, runtime.NumCPU())
	small := int64(min(64*MiB, cfg.Memory/16))
	add("timezone", "UTC")
	add("max_server_memory_usage", int64(cfg.Memory))
	add("mark_cache_size", int64(cfg.MarkCache))
	add("index_mark_cache_size", small)
	add("uncompressed_cache_size", 0)
	add("index_uncompressed_cache_size", small)
	add("query_condition_cache_size", small)
	add("primary_index_cache_size", small)
	add("compiled_expression_cache_size", small/2)
	add("mmap_cache_size", 100)
	add("background_pool_size", merges)
	add("background_merges_mutations_concurrency_ratio", 1)
	add("background_schedule_pool_size", merges)
	add("background_common_pool_size", 2)
	add("background_move_pool_size", 1)
	add("background_fetches_pool_size", 1)
	add("max_thread_pool_size", 1000)
	add("max_thread_pool_free_size", 32)
	add("max_io_thread_pool_size", 16)
	add("max_io_thread_pool_free_size", 0)
	add("max_concurrent_queries", 0) // the pool bounds them
	b, err := xml.MarshalIndent(doc, "", "  ")
	if err != nil {
		panic(err) // plain strings and numbers always encode
	}
	return append(b, '\n')
}

// WithParent returns a context that ends when r does. The supervisor holds the
// other end of the child's standard input, so its death, of whatever kind, is
// the end of this input.
func WithParent(ctx context.Context, r io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, r) // any end of it is the same news
		cancel()
	}()
	return ctx, cancel
}
