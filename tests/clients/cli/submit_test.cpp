#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "clients/cli/output/npy.hpp"
#include "clients/cli/submit/progress.hpp"
#include "clients/cli/submit/submit_run.hpp"
#include "common/check.hpp"
#include "common/os/stop_signal.hpp"
#include "tests/support/as_nobody.hpp"
#include "tests/support/fake_coordinator.hpp"

namespace tessera::cli {
namespace {

using test::fake_vector;
using test::FakeCoordinator;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

// One for the process: it blocks signals.
const StopSignal& stop_signal() {
  static const StopSignal stop;
  return stop;
}

class SubmitTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "submit_test_" + std::to_string(getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << content;
    return folder_ + "/" + name;
  }

  std::string write_lines(int count, const std::string& name = "in.txt") {
    std::string content;
    for (int i = 0; i < count; ++i) {
      content += line(i) + "\n";
    }
    return write(name, content);
  }

  static std::string line(int i) { return "line number " + std::to_string(i); }

  SubmitOptions options(const std::string& input) {
    SubmitOptions options;
    options.connect.client.coordinator = coordinator_.address();
    options.connect.client.hello_again = std::chrono::milliseconds(50);
    options.inputs = {input};
    options.output.inputs = options.inputs;
    options.output.folder = folder_ + "/out";
    options.chunk_items = 10;
    options.json = true;
    options.quiet = true;
    return options;
  }

  static int run(const SubmitOptions& options) {
    testing::internal::CaptureStdout();
    int code = 0;
    try {
      code = SubmitRun(options, stop_signal()).run();
    } catch (...) {
      testing::internal::GetCapturedStdout();
      throw;
    }
    testing::internal::GetCapturedStdout();
    return code;
  }

  static std::string error_in(const std::function<void()>& action) {
    try {
      action();
    } catch (const FatalError& error) {
      return error.what();
    }
    return "";
  }
  static std::string error_of(SubmitOptions options, const std::string& folder = "") {
    if (!folder.empty()) {
      options.output.folder = folder;
    }
    return error_in([&] { run(options); });
  }

  std::vector<std::string> output_lines(const std::string& name) {
    std::ifstream file(folder_ + "/out/" + name);
    std::vector<std::string> lines;
    for (std::string text; std::getline(file, text);) {
      lines.push_back(text);
    }
    return lines;
  }

  // All rows of all shards are those of lines 0..count-1, in order.
  void expect_rows(int count, std::uint64_t shard_rows) {
    int row = 0;
    for (int shard = 0; row < count; ++shard) {
      char name[64];
      std::snprintf(name, sizeof(name), "/out/vectors-%05d.npy", shard);
      const NpyMatrix matrix = read_npy(folder_ + name);
      ASSERT_EQ(matrix.rows,
                std::min<std::uint64_t>(shard_rows, static_cast<std::uint64_t>(count - row)));
      for (std::uint64_t i = 0; i < matrix.rows; ++i, ++row) {
        const std::string text = line(row);
        const auto expected = fake_vector(std::as_bytes(std::span(text)), 32);
        const std::vector<float> got(matrix.values.begin() + static_cast<long>(32 * i),
                                     matrix.values.begin() + static_cast<long>(32 * (i + 1)));
        ASSERT_EQ(got, expected) << row;
      }
    }
    const auto ids = output_lines("ids.txt");
    ASSERT_EQ(ids.size(), static_cast<std::size_t>(count));
    EXPECT_EQ(ids.back(), std::to_string(count - 1));
  }

  FakeCoordinator coordinator_;
  std::string folder_;
};

TEST_F(SubmitTest, WritesRowsInInputOrder) {
  coordinator_.reverse_results = true;
  auto opts = options(write_lines(1234));
  opts.output.shard_rows = 500;
  EXPECT_EQ(run(opts), kExitOk);
  expect_rows(1234, 500);
  EXPECT_TRUE(output_lines("errors.jsonl").empty());
}

TEST_F(SubmitTest, ResultsOutOfOrderAreSetAsideAndNeverHoldUpTheJob) {
  // All results wait until the window is full, then come last first.
  coordinator_.reverse_results = true;
  coordinator_.hold_results = true;
  coordinator_.window_chunks = 16;
  std::jthread releasing([&] {
    while (coordinator_.counts().chunks < 16) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    coordinator_.hold_results = false;
  });
  EXPECT_EQ(run(options(write_lines(1000))), kExitOk);
  expect_rows(1000, 1U << 18);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/out/ahead"));
}

TEST_F(SubmitTest, SecondRunAsksNothing) {
  auto opts = options(write_lines(100));
  EXPECT_EQ(run(opts), kExitOk);
  opts.connect.client.coordinator = "tcp://127.0.0.1:1";  // Nobody is there.
  opts.connect.connect_s = 0.01;
  EXPECT_EQ(run(opts), kExitOk);
  expect_rows(100, 1U << 18);
}

TEST_F(SubmitTest, AFinishedFolderIsComparedWithTheModelThatIsServed) {
  const auto opts = options(write_lines(30));
  EXPECT_EQ(run(opts), kExitOk);
  EXPECT_EQ(run(opts), kExitOk);
  coordinator_.fingerprint = 'e';
  EXPECT_THAT(error_of(opts),
              HasSubstr("holds vectors of another model (fingerprint ffffffffffff"));
  coordinator_.fingerprint = 'f';
  EXPECT_EQ(run(opts), kExitOk);
}

TEST_F(SubmitTest, ARefusedRunLeavesNothingAndTheAdvisedRetryWorks) {
  const std::string input = write("in.csv", "ID,Text\n1,alpha\n2,beta\n");
  auto opts = options(input);
  EXPECT_FALSE(error_of(opts).empty());
  opts.read.field = "Text";
  opts.read.id_field = "ID";
  coordinator_.refuse_specs = true;
  EXPECT_THAT(error_of(opts), HasSubstr("INVALID_ARGUMENT"));
  auto nobody = opts;
  nobody.connect.client.coordinator = "tcp://127.0.0.1:1";
  nobody.connect.connect_s = 0.01;
  EXPECT_FALSE(error_of(nobody).empty());
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/out"));
  coordinator_.refuse_specs = false;
  EXPECT_EQ(run(opts), kExitOk);
  EXPECT_EQ(output_lines("ids.txt"), (std::vector<std::string>{"1", "2"}));
}

TEST_F(SubmitTest, FoldersThatCannotBeWrittenSayWhy) {
  const std::string input = write_lines(3);
  std::filesystem::create_directories(folder_ + "/out");
  EXPECT_THAT(test::error_as_nobody([&] { JobFolder(folder_ + "/out", "{}").claim(); }),
              EndsWith("/out: Permission denied"));
  EXPECT_THAT(test::error_as_nobody([&] { JobFolder(folder_ + "/new/deep", "{}").claim(); }),
              EndsWith(": Permission denied"));
  EXPECT_THAT(error_of(options(input), input), HasSubstr("in.txt is not a folder"));
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/out"));
}

TEST_F(SubmitTest, TwoRunsInOneFolderAreToldApart) {
  JobFolder first(folder_ + "/out", "{}");
  JobFolder second(folder_ + "/out", "{}");  // Neither has begun.
  first.claim();
  EXPECT_THAT(error_in([&] { second.claim(); }),
              HasSubstr("out is in use by process " + std::to_string(getpid())));
  EXPECT_THAT(error_in([&] { JobFolder(folder_ + "/out", "{}"); }), HasSubstr("(tessera submit)"));
}

TEST_F(SubmitTest, AFolderOfAnOlderVersionGoesOn) {
  { JobFolder(folder_ + "/out", R"({"model":"","dimensions":0})").claim(); }
  // A setting that the older one did not know, at its neutral value; then at another.
  const std::string now = R"({"model":"","dimensions":0,"prompt_name":"","more":false})";
  EXPECT_TRUE(JobFolder(folder_ + "/out", now).claimed());
  EXPECT_THAT(
      error_in([&] { JobFolder(folder_ + "/out", R"({"model":"","prompt_name":"document"})"); }),
      HasSubstr("other options (prompt_name)"));
  { JobFolder(folder_ + "/out3", R"({"dimensions":64})").claim(); }
  EXPECT_THAT(error_in([&] { JobFolder(folder_ + "/out3", "{}"); }), HasSubstr("(dimensions)"));
}

TEST_F(SubmitTest, GoesOnAfterACancelledJob) {
  const auto opts = options(write_lines(300));
  coordinator_.window_chunks = 4;
  coordinator_.hold_results = true;
  std::jthread cancelling([&] {
    while (coordinator_.counts().chunks < 4) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    client::Client client({.coordinator = coordinator_.address()});
    (void)client.cancel("job-1", std::chrono::seconds(60));
    coordinator_.hold_results = false;
  });
  EXPECT_THROW(run(opts), FatalError);
  cancelling.join();
  EXPECT_EQ(run(opts), kExitOk);
  expect_rows(300, 1U << 18);
}

TEST_F(SubmitTest, GoesOnAfterALostLedger) {
  const auto opts = options(write_lines(300));
  coordinator_.lose_results = 8;  // A whole window.
  std::jthread losing([&] {
    while (coordinator_.counts().chunks < 8) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    coordinator_.stop();
    coordinator_.forget_ledger();
    coordinator_.start();
  });
  try {
    run(opts);
  } catch (const FatalError&) {
  }
  losing.join();
  EXPECT_EQ(run(opts), kExitOk);
  expect_rows(300, 1U << 18);
}

TEST_F(SubmitTest, BadItemsAreReportedInTheirPlace) {
  const auto opts = options(write("in.jsonl",
                                  "{\"id\": \"a\", \"text\": \"one\"}\n"
                                  "{\"id\": \"b\", \"text\": \"\"}\n"
                                  "{\"id\": \"c\", \"text\": \"\\ud800\"}\n"
                                  "{\"id\": \"d\\nd\", \"text\": \"x\"}\n"
                                  "{\"id\": \"e\", \"text\": \"two\"}\n"));
  EXPECT_EQ(run(opts), kExitItemErrors);
  EXPECT_EQ(output_lines("ids.txt"), (std::vector<std::string>{"a", "e"}));
  EXPECT_EQ(read_npy(folder_ + "/out/vectors-00000.npy").rows, 2U);
  const auto errors = output_lines("errors.jsonl");
  ASSERT_EQ(errors.size(), 3U);
  const auto first = nlohmann::json::parse(errors[0]);
  EXPECT_EQ(first.at("id"), "b");
  EXPECT_EQ(first.at("index"), 1);
  EXPECT_EQ(first.at("code"), "EMPTY_TEXT");
  EXPECT_FALSE(first.at("message").get<std::string>().empty());
  EXPECT_EQ(first.at("file"), folder_ + "/in.jsonl");
  EXPECT_EQ(first.at("line"), 2);
  EXPECT_EQ(nlohmann::json::parse(errors[1]).at("code"), "INVALID_UTF8");
  EXPECT_EQ(nlohmann::json::parse(errors[2]).at("id"), "d\nd");
  EXPECT_EQ(nlohmann::json::parse(errors[2]).at("code"), "INVALID_ARGUMENT");
}

// Types and digits of ids too; a line that has none, or is broken, gets none that another may have.
TEST_F(SubmitTest, IdsInTheOutputAreThoseOfTheInput) {
  const std::vector<std::string> ids = {
      "null", "\"0\"",     "2",    "1.0",         "12345678901234567890123",
      "true", "{\"a\":1}", "\"\"", "\"\xC3\xA9\""};
  std::string content;
  for (const std::string& id : ids) {
    content += R"({"id":)" + id + R"(,"text":"t"})" + "\n";
  }
  content += "{\"text\":\"u\"}\nbroken\n{\"id\":7,\"text\":5}\n";
  auto opts = options(write("in.jsonl", content));
  EXPECT_EQ(run(opts), kExitItemErrors);
  EXPECT_EQ(output_lines("ids.txt"),
            (std::vector<std::string>{"", "0", "2", "1.0", "12345678901234567890123", "true",
                                      "{\"a\":1}", "", "\xC3\xA9", ""}));
  const auto errors = output_lines("errors.jsonl");
  ASSERT_EQ(errors.size(), 2U);
  EXPECT_THAT(errors[0], StartsWith("{\"id\":null,\"index\":10,\"file\":\"" + opts.inputs[0] +
                                    "\",\"line\":11,\"code\""));
  EXPECT_THAT(errors[1], StartsWith("{\"id\":7,\"index\":11,"));

  opts.output.format = OutputFormat::kJsonLines;
  opts.output.folder = folder_ + "/lines";
  EXPECT_EQ(run(opts), kExitItemErrors);
  std::ifstream lines(folder_ + "/lines/vectors.jsonl");
  std::string line;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ASSERT_TRUE(std::getline(lines, line));
    EXPECT_THAT(line, StartsWith("{\"id\":" + ids[i] + ",\"index\":" + std::to_string(i) + ","));
  }
}

TEST_F(SubmitTest, RefusesAnotherInputOrSpecInTheSameFolder) {
  auto opts = options(write_lines(100));
  EXPECT_EQ(run(opts), kExitOk);
  auto other = opts;
  other.spec.dimensions = 64;
  EXPECT_THROW(run(other), FatalError);
  write("in.txt", "something else\n");
  EXPECT_THROW(run(opts), FatalError);
  write_lines(99);
  EXPECT_THROW(run(opts), FatalError);
  write_lines(200);
  EXPECT_THROW(run(opts), FatalError);
  write_lines(100);
  EXPECT_EQ(run(opts), kExitOk);
}

TEST_F(SubmitTest, RefusesAFolderThatIsNotItsOwn) {
  std::filesystem::create_directories(folder_ + "/out");
  write("out/precious.txt", "x");
  EXPECT_THROW(run(options(write_lines(10))), FatalError);
}

TEST_F(SubmitTest, EmptyInputEndsWell) {
  EXPECT_EQ(run(options(write("in.txt", ""))), kExitOk);
  EXPECT_EQ(run(options(write("in.txt", ""))), kExitOk);
}

TEST_F(SubmitTest, OtherFormats) {
  auto opts = options(write_lines(25));
  opts.output.format = OutputFormat::kJsonLines;
  EXPECT_EQ(run(opts), kExitOk);
  const auto lines = output_lines("vectors.jsonl");
  ASSERT_EQ(lines.size(), 25U);
  const auto last = nlohmann::json::parse(lines[24]);
  const std::string text = line(24);
  EXPECT_EQ(last.at("vector").get<std::vector<float>>(),
            fake_vector(std::as_bytes(std::span(text)), 32));

  opts.output.folder = folder_ + "/out2";
  opts.output.format = OutputFormat::kFvecs;
  EXPECT_EQ(run(opts), kExitOk);
  EXPECT_EQ(std::filesystem::file_size(folder_ + "/out2/vectors.fvecs"), 25U * (4 + 32 * 4));
}

TEST(ProgressLine, SaysWhatIsKnown) {
  ProgressNumbers numbers{.items = 50, .errors = 1, .cache_hits = 7, .tokens = 1000};
  EXPECT_EQ(progress_line(numbers, 10, 0), "50 items  100 tokens/s  7 from cache  1 errors");
  numbers.fraction_start = 0.2;
  numbers.fraction = 0.6;
  EXPECT_EQ(progress_line(numbers, 10, 10),
            "[######....]  60 %  50 items  100 tokens/s  7 from cache  1 errors  0:10 left");
  EXPECT_EQ(duration_text(3723), "1:02:03");
  numbers.connected = false;
  EXPECT_EQ(progress_line(numbers, 10, 0),
            " 60 %  50 items  100 tokens/s  7 from cache  1 errors  waiting for the coordinator");
}

TEST(Npy, HeaderIsReadBack) {
  const std::string path = testing::TempDir() + "npy_test_" + std::to_string(getpid()) + ".npy";
  const std::vector<float> rows{1, 2, 3, 4, 5, 6};
  const std::string header = npy_header(protocol::VectorType::kFloat32, 2, 3);
  EXPECT_EQ(header.size(), kNpyHeaderBytes);
  std::ofstream(path, std::ios::binary)
      << header << std::string(reinterpret_cast<const char*>(rows.data()), 24);
  EXPECT_EQ(read_npy(path).values, rows);
  // Cut anywhere, it is refused and never read past its end.
  for (std::uintmax_t bytes = 0; bytes < 128 + 24; ++bytes) {
    std::filesystem::resize_file(path, 128 + 24);
    std::filesystem::resize_file(path, bytes);
    EXPECT_THROW(read_npy(path), FatalError) << bytes;
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace tessera::cli
