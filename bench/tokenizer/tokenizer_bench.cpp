// Speed of the tokenizer on texts of a JSON Lines file, one JSON string a line:
//
//   tokenizer_bench TOKENIZER_JSON [FILE.jsonl...] [--rounds N] [--threads N] [--adversarial]
//                   [--lengths] [--pieces FOLDER]
//
// First checked: every text encodes, and to the same ids with a used word cache and a fresh one.
// Then printed per file: MB/s with a fresh scratch (cold word cache) and with a used one (warm),
// tokens/s, bytes per token, instructions per byte where the machine counts them (instructions.py
// otherwise), and how many times one thread's rate N threads reach. CPU time, median of the rounds.
//
// --adversarial adds single texts of 1 MB that tokenizers have been slow on, each encoded with a
// fresh scratch and then again, with the time per byte as a multiple of the first file's, warm and
// cold. --lengths prints their time per byte at four lengths. --pieces writes, for the peers that
// only merge, the vocabulary and the pieces of all these texts: records of a 32-bit length and
// bytes.
#include <simdjson.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "bench/tokenizer/adversarial.hpp"
#include "bench/tokenizer/instruction_counter.hpp"
#include "bench/tokenizer/pieces.hpp"
#include "common/check.hpp"
#include "common/tokenizer/tokenizer.hpp"

namespace tessera {
namespace {

struct Arguments {
  std::string tokenizer;
  std::vector<std::string> files;
  int rounds = 7;
  int threads = 2;
  bool adversarial = false;
  bool lengths = false;
  std::string pieces;
};

struct Corpus {
  std::vector<std::string> texts;
  std::size_t bytes = 0;
};

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--rounds" && i + 1 < argc) {
      arguments.rounds = std::stoi(argv[++i]);
    } else if (word == "--threads" && i + 1 < argc) {
      arguments.threads = std::stoi(argv[++i]);
    } else if (word == "--adversarial") {
      arguments.adversarial = true;
    } else if (word == "--lengths") {
      arguments.lengths = true;
    } else if (word == "--pieces" && i + 1 < argc) {
      arguments.pieces = argv[++i];
    } else if (arguments.tokenizer.empty()) {
      arguments.tokenizer = word;
    } else {
      arguments.files.emplace_back(word);
    }
  }
  if (arguments.tokenizer.empty() || arguments.rounds < 1) {
    throw FatalError("usage: tokenizer_bench TOKENIZER_JSON [FILE.jsonl...] [--rounds N]");
  }
  return arguments;
}

Corpus read_corpus(const std::string& name) {
  std::ifstream file(name);
  simdjson::dom::parser parser;
  Corpus corpus;
  for (std::string line; std::getline(file, line);) {
    std::string_view text;
    if (parser.parse(line).get(text) != simdjson::SUCCESS) {
      throw FatalError(name + ": a line is not a JSON string");
    }
    corpus.bytes += text.size();
    corpus.texts.emplace_back(text);
  }
  if (corpus.texts.empty()) {
    throw FatalError("no texts in " + name);
  }
  return corpus;
}

std::size_t encode_all(const Tokenizer& tokenizer, const Corpus& corpus, EncodeScratch& scratch) {
  std::size_t tokens = 0;
  for (const std::string& text : corpus.texts) {
    tokens += tokenizer.encode(text, {}, scratch)->ids.size();
  }
  return tokens;
}

// Not inlined, so that callgrind can collect inside one of them alone, see instructions.py.
[[gnu::noinline]] std::size_t encode_cold(const Tokenizer& tokenizer, const Corpus& corpus,
                                          EncodeScratch& scratch) {
  scratch = EncodeScratch();
  return encode_all(tokenizer, corpus, scratch);
}
[[gnu::noinline]] std::size_t encode_warm(const Tokenizer& tokenizer, const Corpus& corpus,
                                          EncodeScratch& scratch) {
  return encode_all(tokenizer, corpus, scratch);
}

double now_s(clockid_t clock) {
  timespec time{};
  CHECK(clock_gettime(clock, &time) == 0);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// By the thread's own clock, so that other work on the machine does not count.
double seconds_of(const std::function<void()>& work) {
  const double start = now_s(CLOCK_THREAD_CPUTIME_ID);
  work();
  return now_s(CLOCK_THREAD_CPUTIME_ID) - start;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// Ids do not depend on what the word cache holds.
void check(const Tokenizer& tokenizer, const Corpus& corpus) {
  EncodeScratch used;
  for (const std::string& text : corpus.texts) {
    const Result<Encoding> first = tokenizer.encode(text, {}, used);
    CHECK(first.ok());
  }
  for (std::size_t i = 0; i < corpus.texts.size(); i += 97) {
    EncodeScratch fresh;
    CHECK(tokenizer.encode(corpus.texts[i], {}, used)->ids ==
          tokenizer.encode(corpus.texts[i], {}, fresh)->ids);
  }
}

// The slowest of several threads that each encode everything at the same time.
double threaded_seconds(const Tokenizer& tokenizer, const Corpus& corpus, int count) {
  std::vector<double> seconds(static_cast<std::size_t>(count));
  std::vector<std::jthread> threads;
  for (double& own_seconds : seconds) {
    threads.emplace_back([&] {
      own_seconds = seconds_of([&] {
        EncodeScratch scratch;
        encode_all(tokenizer, corpus, scratch);
      });
    });
  }
  threads.clear();  // Joins.
  return count == 0 ? 0 : std::ranges::max(seconds);
}

struct Rates {
  double warm = 0;
  double cold = 0;
};

// Returns MB/s.
Rates measure(const Tokenizer& tokenizer, const std::string& name, const Arguments& arguments) {
  const Corpus corpus = read_corpus(name);
  check(tokenizer, corpus);
  std::vector<double> cold;
  std::vector<double> warm;
  std::vector<double> threaded;
  std::size_t tokens = 0;
  for (int round = 0; round < arguments.rounds; ++round) {
    EncodeScratch scratch;
    cold.push_back(seconds_of([&] { tokens = encode_cold(tokenizer, corpus, scratch); }));
    warm.push_back(seconds_of([&] { tokens = encode_warm(tokenizer, corpus, scratch); }));
    threaded.push_back(threaded_seconds(tokenizer, corpus, arguments.threads));
  }
  EncodeScratch scratch;
  encode_all(tokenizer, corpus, scratch);
  const auto instructions =
      InstructionCounter().count([&] { encode_all(tokenizer, corpus, scratch); });
  const double megabytes = static_cast<double>(corpus.bytes) / 1e6;
  const std::string_view leaf = std::string_view(name).substr(name.rfind('/') + 1);
  std::printf("%-18.*s %6.1f MB %8.1f cold %8.1f warm MB/s %7.1f Mtok/s %5.2f B/tok",
              static_cast<int>(leaf.size()), leaf.data(), megabytes, megabytes / median(cold),
              megabytes / median(warm), static_cast<double>(tokens) / 1e6 / median(warm),
              static_cast<double>(corpus.bytes) / static_cast<double>(tokens));
  if (instructions) {
    std::printf(" %5.1f instr/B", *instructions / static_cast<double>(corpus.bytes));
  }
  if (arguments.threads > 0) {
    std::printf("  %d threads x%.2f", arguments.threads,
                arguments.threads * median(cold) / median(threaded));
  }
  std::printf("\n");
  return {megabytes / median(warm), megabytes / median(cold)};
}

struct AdversarialRates {
  double first = 0;  // MB/s with a fresh scratch,
  double again = 0;  // and with the one that has just encoded the text.
  std::size_t tokens = 0;
};

AdversarialRates rates_of(const Tokenizer& tokenizer, const std::string& text, int rounds) {
  AdversarialRates rates;
  std::vector<double> first;
  std::vector<double> again;
  for (int round = 0; round < rounds; ++round) {
    EncodeScratch scratch;
    for (std::vector<double>* seconds : {&first, &again}) {
      seconds->push_back(
          seconds_of([&] { rates.tokens = tokenizer.encode(text, {}, scratch)->ids.size(); }));
    }
  }
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  rates.first = megabytes / median(first);
  rates.again = megabytes / median(again);
  return rates;
}

void measure_adversarial(const Tokenizer& tokenizer, const Rates& prose, int rounds) {
  std::printf("%-26s %8s %8s %9s   %s\n", "", "first", "again", "Mtok/s",
              "time per byte against prose: first/warm again/warm first/cold");
  for (const auto& [name, text] : adversarial_texts(tokenizer, 1'000'000)) {
    const AdversarialRates rates = rates_of(tokenizer, text, rounds);
    std::printf("%-26s %8.1f %8.1f %9.1f   x%.2f x%.2f x%.2f\n", name.c_str(), rates.first,
                rates.again,
                static_cast<double>(rates.tokens) / static_cast<double>(text.size()) * rates.first,
                prose.warm / rates.first, prose.warm / rates.again, prose.cold / rates.first);
  }
}

// Flat rows: time is linear in the text.
void measure_lengths(const Tokenizer& tokenizer, int rounds) {
  constexpr std::size_t kSizes[] = {1U << 16U, 1U << 18U, 1U << 20U, 1U << 22U};
  std::vector<std::string> rows;
  for (const std::size_t size : kSizes) {
    const auto texts = adversarial_texts(tokenizer, size);
    rows.resize(texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      char cell[64];
      std::snprintf(cell, sizeof cell, rows[i].empty() ? "%-26s %8.2f" : "%.0s %8.2f",
                    texts[i].first.c_str(),
                    1e3 / rates_of(tokenizer, texts[i].second, rounds).first);
      rows[i] += cell;
    }
  }
  std::printf("%-26s %8s %8s %8s %8s\n", "ns per byte, first", "64 KB", "256 KB", "1 MB", "4 MB");
  for (const std::string& row : rows) {
    std::printf("%s\n", row.c_str());
  }
}

int run(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  std::vector<double> loads;
  for (int round = 0; round < 3; ++round) {
    loads.push_back(seconds_of([&] { CHECK(Tokenizer::load(arguments.tokenizer).ok()); }));
  }
  const Result<Tokenizer> tokenizer = Tokenizer::load(arguments.tokenizer);
  std::printf("load %.0f ms\n", 1e3 * median(loads));
  Rates prose;
  for (const std::string& file : arguments.files) {
    const Rates rates = measure(*tokenizer, file, arguments);
    prose = prose.warm > 0 ? prose : rates;
  }
  if (arguments.adversarial) {
    measure_adversarial(*tokenizer, prose, arguments.rounds);
  }
  if (arguments.lengths) {
    measure_lengths(*tokenizer, arguments.rounds);
  }
  if (!arguments.pieces.empty()) {
    std::vector<std::pair<std::string, std::vector<std::string>>> sets;
    for (const std::string& file : arguments.files) {
      sets.emplace_back(std::filesystem::path(file).stem(), read_corpus(file).texts);
    }
    for (auto& [name, text] : adversarial_texts(*tokenizer, 1'000'000)) {
      sets.push_back({name, {std::move(text)}});
    }
    write_pieces(*tokenizer, sets, arguments.pieces);
  }
  return 0;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  try {
    return tessera::run(argc, argv);
  } catch (const tessera::FatalError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
