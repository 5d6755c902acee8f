#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "clients/cli/command.hpp"
#include "clients/cli/output/vector_writer.hpp"
#include "clients/cli/submit/manifest.hpp"
#include "common/check.hpp"
#include "tests/support/fake_coordinator.hpp"

namespace tessera::cli {
namespace {

using testing::HasSubstr;

class SearchTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "search_test_" + std::to_string(getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // An index of two rows, the second of which is the fake's answer to "beta".
  void make_index(const std::string& fingerprint) {
    Manifest manifest{.settings = "{}", .job_key = "k", .fingerprint = fingerprint};
    VectorWriter writer({.folder = folder_}, {});
    for (const std::string text : {"alpha", "beta"}) {
      const auto vector = test::fake_vector(std::as_bytes(std::span(text)), 32);
      writer.add_vector({RecordId::Kind::kText, "the " + text}, 0, std::as_bytes(std::span(vector)),
                        32);
    }
    manifest.output = writer.sync();
    manifest.finished = true;
    manifest.save(folder_);
  }

  // What the command prints, or the sentence with which it fails.
  std::string search(const std::vector<std::string>& more = {}) {
    CLI::App app;
    Selected selected;
    add_search(app, selected);
    std::vector<std::string> words = {"search",  "beta",          "--index",
                                      folder_,   "--coordinator", coordinator_.address(),
                                      "--plain", "--top",         "1"};
    words.insert(words.end(), more.begin(), more.end());
    std::ranges::reverse(words);
    app.parse(words);
    testing::internal::CaptureStdout();
    try {
      selected.run();
    } catch (const FatalError& error) {
      testing::internal::GetCapturedStdout();
      return error.what();
    }
    return testing::internal::GetCapturedStdout();
  }

  test::FakeCoordinator coordinator_;
  std::string folder_;
};

TEST_F(SearchTest, FindsInAnIndexOfTheServedModel) {
  make_index(std::string(64, 'f'));
  EXPECT_EQ(search(), "beta\n  1.000  the beta\n");
}

TEST_F(SearchTest, RefusesAnIndexOfAnotherModelOfTheSameWidth) {
  make_index(std::string(64, 'e'));
  EXPECT_THAT(search(), HasSubstr("was made by another model (fingerprint eeeeeeeeeeee...) than "
                                  "fake as it is served now (ffffffffffff...)"));
  EXPECT_EQ(search({"--any-model"}), "beta\n  1.000  the beta\n");
  coordinator_.fingerprint = 'e';
  EXPECT_EQ(search(), "beta\n  1.000  the beta\n");
}

TEST_F(SearchTest, RefusesAnIndexThatDoesNotSayItsModel) {
  make_index("");
  EXPECT_THAT(search(), HasSubstr("does not say which model"));
  std::filesystem::remove(folder_ + "/manifest.json");
  EXPECT_THAT(search(), HasSubstr("does not say which model"));
  EXPECT_THAT(search({"--any-model"}), HasSubstr("the beta"));
}

TEST_F(SearchTest, RefusesFilesThatDoNotBelongTogether) {
  make_index(std::string(64, 'f'));
  std::ofstream(folder_ + "/ids.txt") << "only one\n";
  EXPECT_THAT(search(), HasSubstr("has 2 vectors and 1 ids"));
}

}  // namespace
}  // namespace tessera::cli
