#include <iostream>

#include "judge/score.hpp"

int main(int argc, char** argv) { return ebb::judge::run_score(argc, argv, std::cout, std::cerr); }
