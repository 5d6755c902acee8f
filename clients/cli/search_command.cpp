#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "clients/cli/command.hpp"
#include "clients/cli/output/npy.hpp"
#include "clients/cli/submit/manifest.hpp"
#include "common/check.hpp"

namespace tessera::cli {
namespace {

struct SearchOptions {
  ConnectOptions connect;
  protocol::EmbedSpec spec;
  std::string index;
  std::vector<std::string> queries;
  std::size_t top = 5;
  bool plain = false;
  bool any_model = false;
  bool json = false;
};

struct Hit {
  float score = 0;
  std::size_t row = 0;
  bool operator<(const Hit& other) const { return score > other.score; }  // Best first.
};

// Vectors of different models have nothing to do with each other, however alike their widths.
void compare_models(const SearchOptions& options, const std::optional<Manifest>& manifest,
                    const std::vector<protocol::ModelInfo>& models) {
  if (options.any_model) {
    return;
  }
  const std::string insist = "; --any-model searches all the same";
  if (!manifest || manifest->fingerprint.empty()) {
    throw FatalError(options.index + " does not say which model made its vectors" + insist);
  }
  const protocol::ModelInfo* model = served_model(models, options.spec.model);
  if (model == nullptr || model->fingerprint.empty()) {
    throw FatalError("the coordinator does not say which model it serves" + insist);
  }
  if (model->fingerprint != manifest->fingerprint) {
    throw FatalError(fmt::format(
        "{} was made by another model (fingerprint {:.12}...) than {} as it is served now "
        "({:.12}...), whose vectors cannot be compared{}",
        options.index, manifest->fingerprint, model->name, model->fingerprint, insist));
  }
}

std::vector<std::string> read_ids(const std::string& folder) {
  std::ifstream file(folder + "/ids.txt");
  if (!file) {
    throw FatalError(folder + " has no ids.txt; is it a folder of `tessera submit` in npy format?");
  }
  std::vector<std::string> ids;
  for (std::string line; std::getline(file, line);) {
    ids.push_back(std::move(line));
  }
  return ids;
}

// The best `top` rows for each query over all shards, one shard in memory at a time.
class Search {
 public:
  Search(std::vector<std::vector<float>> queries, std::size_t top)
      : queries_(std::move(queries)), top_(top), hits_(queries_.size()) {}

  void add_shard(const NpyMatrix& shard) {
    for (std::size_t q = 0; q < queries_.size(); ++q) {
      if (queries_[q].size() != shard.columns) {
        throw FatalError(
            fmt::format("the index is {} wide, the query {}", shard.columns, queries_[q].size()));
      }
      for (std::uint64_t row = 0; row < shard.rows; ++row) {
        const float* vector = shard.values.data() + row * shard.columns;
        float score = 0;
        for (std::uint64_t i = 0; i < shard.columns; ++i) {
          score += vector[i] * queries_[q][i];
        }
        keep(hits_[q], {score, first_row_ + row});
      }
    }
    first_row_ += shard.rows;
    columns_ = shard.columns;
  }

  std::uint64_t rows() const { return first_row_; }

  std::vector<Hit> best(std::size_t query) {
    std::sort(hits_[query].begin(), hits_[query].end());
    return hits_[query];
  }

 private:
  // A heap whose front is the worst of the best.
  void keep(std::vector<Hit>& hits, Hit hit) const {
    if (hits.size() < top_) {
      hits.push_back(hit);
      std::push_heap(hits.begin(), hits.end());
    } else if (hit < hits.front()) {
      std::pop_heap(hits.begin(), hits.end());
      hits.back() = hit;
      std::push_heap(hits.begin(), hits.end());
    }
  }

  std::vector<std::vector<float>> queries_;
  std::size_t top_;
  std::vector<std::vector<Hit>> hits_;
  std::uint64_t first_row_ = 0;
  std::uint64_t columns_ = 0;
};

std::vector<std::string> shards_of(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("vectors-") && name.ends_with(".npy")) {
      paths.push_back(entry.path());
    }
  }
  if (paths.empty()) {
    throw FatalError("no vectors-*.npy in " + folder + "; make them with `tessera submit`");
  }
  std::ranges::sort(paths);
  return paths;
}

std::vector<std::vector<float>> embed_queries(const SearchOptions& options,
                                              const std::optional<Manifest>& manifest) {
  client::Client client = connect(options.connect);
  std::vector<client::Item> items;
  for (const std::string& query : options.queries) {
    items.push_back({.text = query, .ids = {}});
  }
  auto answer = client.embed(items, options.spec, std::chrono::seconds(60));
  if (!answer) {
    throw FatalError(std::string(tessera::to_string(answer.error().code)) + ": " +
                     answer.error().message);
  }
  // Asked behind the answer: by then a model is known, even when its first worker has just come.
  const auto status = client.status("", std::chrono::seconds(30));
  compare_models(options, manifest, status ? status->models : std::vector<protocol::ModelInfo>{});
  std::vector<std::vector<float>> vectors;
  for (client::ItemResult& item : answer->items) {
    if (!item.ok()) {
      throw FatalError("a query cannot be embedded: " + item.error.message);
    }
    vectors.push_back(std::move(item.vector));
  }
  return vectors;
}

int run_search(SearchOptions& options) {
  const std::vector<std::string> shards = shards_of(options.index);
  const std::vector<std::string> ids = read_ids(options.index);
  options.spec.query = !options.plain && options.spec.prompt_name.empty();
  NpyMatrix first = read_npy(shards.front());
  if (options.spec.dimensions == 0) {
    options.spec.dimensions = static_cast<std::uint32_t>(first.columns);
  }
  const auto manifest = Manifest::load(options.index);
  if (manifest && !manifest->finished) {
    std::fprintf(stderr, "note: the job of %s is not finished; %llu items are searched\n",
                 options.index.c_str(), static_cast<unsigned long long>(manifest->output.rows));
  }
  Search search(embed_queries(options, manifest), options.top);
  search.add_shard(first);
  for (std::size_t i = 1; i < shards.size(); ++i) {
    search.add_shard(read_npy(shards[i]));
  }
  if (search.rows() > ids.size()) {
    throw FatalError(
        fmt::format("{} has {} vectors and {} ids; some of its files are of another job",
                    options.index, search.rows(), ids.size()));
  }
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (std::size_t q = 0; q < options.queries.size(); ++q) {
    nlohmann::ordered_json found = nlohmann::ordered_json::array();
    if (!options.json) {
      std::printf("%s\n", options.queries[q].c_str());
    }
    for (const Hit& hit : search.best(q)) {
      const std::string& id = ids[hit.row];
      found.push_back({{"id", id}, {"row", hit.row}, {"score", hit.score}});
      if (!options.json) {
        std::printf("  %.3f  %s\n", static_cast<double>(hit.score), id.c_str());
      }
    }
    json.push_back({{"query", options.queries[q]}, {"found", std::move(found)}});
  }
  if (options.json) {
    std::printf("%s\n", json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  }
  return kExitOk;
}

}  // namespace

void add_search(CLI::App& app, Selected& selected) {
  CLI::App* command =
      app.add_subcommand("search", "Find the nearest rows of a `tessera submit` folder");
  auto options = std::make_shared<SearchOptions>();
  command->add_option("QUERY", options->queries, "Texts to look for")->required();
  command->add_option("--index", options->index, "Folder of `tessera submit`, in npy format")
      ->required();
  command->add_option("--top", options->top, "Rows for each query")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  auto* plain = command->add_flag("--plain", options->plain,
                                  "Embed the queries without the query instruction");
  add_prompt_name(*command, options->spec)->excludes(plain);
  command->add_flag("--json", options->json, "The answer as JSON");
  command->add_flag("--any-model", options->any_model,
                    "Search although the index is of another model, or does not say of which");
  command->add_option("--model", options->spec.model, "Model's name; default: the only one served");
  add_connect_options(*command, options->connect);
  command->footer(std::string("Compares with every row: good for up to some millions of vectors.\n"
                              "Example:\n  tessera search --index vectors \"edit photos\"\n") +
                  kExitCodes);
  command->callback(
      [options, &selected] { selected.run = [options] { return run_search(*options); }; });
}

}  // namespace tessera::cli
