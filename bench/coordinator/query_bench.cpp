// Latency of single queries over an open connection, sent at a fixed rate whatever becomes of them:
//
//   query_bench --coordinator tcp://HOST:PORT --model NAME [--rate 5] [--seconds 20]
//               [--shortest 8] [--longest 40] [--vocabulary 150000] [--seed 1]
//
// A query is one text of so many token ids, never the same twice, so that each is computed. The
// time counts from the moment at which it was due. Prints a line: how many, how many had errors,
// median, p90, p99 and the longest in milliseconds.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "bench/program.hpp"
#include "clients/cpp/items.hpp"
#include "common/net/receive.hpp"
#include "common/net/zmq_socket.hpp"
#include "common/wire/codec.hpp"

namespace tessera::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string coordinator, model;
  double rate = 5;
  double seconds = 20;
  std::int64_t shortest = 8, longest = 40, vocabulary = 150'000;
  std::uint64_t seed = 1;
};

class Queries {
 public:
  explicit Queries(const Options& options)
      : options_(options), socket_(context_, options.coordinator), random_(options.seed) {}

  // Every query is asked for at its time and waited for at most ten seconds after the last one.
  void run() {
    const auto start = Clock::now();
    const auto count = static_cast<std::uint64_t>(std::llround(options_.rate * options_.seconds));
    const auto due_at = [&](std::uint64_t i) {
      return start + std::chrono::duration_cast<Clock::duration>(
                         std::chrono::duration<double>(static_cast<double>(i) / options_.rate));
    };
    const auto end = due_at(count) + std::chrono::seconds(10);
    net::PollSet poll;
    poll.sockets = {&socket_};
    for (std::uint64_t next = 0; next < count || (!due_.empty() && Clock::now() < end);) {
      if (next < count && Clock::now() >= due_at(next)) {
        ask(next, due_at(next));
        ++next;
      }
      // Spins where the next one is due at once, so that no query is sent late.
      const bool soon = next < count && due_at(next) - Clock::now() < std::chrono::milliseconds(2);
      poll.wait(soon ? 0 : 1);
      receive_all();
    }
    print();
  }

 private:
  void ask(std::uint64_t id, Clock::time_point due) {
    std::uniform_int_distribution<std::int64_t> length(options_.shortest, options_.longest);
    std::uniform_int_distribution<std::int64_t> token(0, options_.vocabulary - 1);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(length(random_)));
    for (std::int32_t& value : ids) value = static_cast<std::int32_t>(token(random_));
    protocol::EmbedRequest request{.request_id = id + 1, .no_cache = true};
    request.spec.model = options_.model;
    client::append_token_ids(request.items, ids);
    due_[id + 1] = due;
    CHECK(socket_.send(protocol::encode(std::move(request))) == net::SendStatus::kSent);
  }

  void receive_all() {
    net::Incoming incoming;
    while (socket_.receive(incoming)) {
      auto message = net::decode(incoming);
      CHECK(message.ok());
      if (const auto* reply = std::get_if<protocol::EmbedReply>(&*message)) {
        const bool good =
            client::check_results(reply->results, 1).ok() && reply->results.codes[0] == 0;
        count(reply->request_id, good);
      } else if (const auto* error = std::get_if<protocol::ErrorReply>(&*message)) {
        std::fprintf(stderr, "%s\n", error->message.c_str());
        count(error->request_id, false);
      } else if (const auto* ping = std::get_if<protocol::Ping>(&*message)) {
        (void)socket_.send(protocol::encode(protocol::Pong{ping->nonce}));
      }
    }
  }

  void count(std::uint64_t id, bool good) {
    const auto asked = due_.find(id);
    if (asked == due_.end()) return;
    errors_ += good ? 0 : 1;
    times_ms_.push_back(
        std::chrono::duration<double, std::milli>(Clock::now() - asked->second).count());
    due_.erase(asked);
  }

  void print() {
    std::ranges::sort(times_ms_);
    const auto at = [&](double share) {
      const auto last = static_cast<double>(times_ms_.size()) - 1;
      return times_ms_.empty() ? NAN : times_ms_[static_cast<std::size_t>(std::ceil(share * last))];
    };
    std::printf(
        "%zu queries, %zu errors, %zu without an answer: p50 %.2f  p90 %.2f  p99 %.2f  longest "
        "%.2f "
        "ms\n",
        times_ms_.size(), errors_, due_.size(), at(0.5), at(0.9), at(0.99), at(1));
  }

  const Options options_;
  net::Context context_;
  net::DealerSocket socket_;
  std::mt19937_64 random_;
  std::map<std::uint64_t, Clock::time_point> due_;  // Asked and not answered.
  std::vector<double> times_ms_;
  std::size_t errors_ = 0;
};

int run(int argc, char** argv) {
  const Flags flags(argc, argv,
                    {"--coordinator", "--model", "--rate", "--seconds", "--shortest", "--longest",
                     "--vocabulary", "--seed"},
                    {});
  Options options{.coordinator = flags.text("--coordinator"), .model = flags.text("--model")};
  options.rate = std::strtod(flags.text("--rate", "5").c_str(), nullptr);
  options.seconds = std::strtod(flags.text("--seconds", "20").c_str(), nullptr);
  options.shortest = flags.number("--shortest", options.shortest);
  options.longest = flags.number("--longest", options.longest);
  options.vocabulary = flags.number("--vocabulary", options.vocabulary);
  options.seed = static_cast<std::uint64_t>(flags.number("--seed", 1));
  if (options.coordinator.empty() || options.rate <= 0 || options.shortest < 1 ||
      options.longest < options.shortest) {
    throw FatalError("--coordinator is needed, a rate above 0 and lengths from 1 on");
  }
  Queries(options).run();
  return 0;
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  try {
    return tessera::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "query_bench: %s\n", error.what());
    return 2;
  }
}
