"""Numbers become a judgement: metrics, baselines, the backtest that scores every predictor alike, and which rows
of a file a saved model may be scored on.

May import `errors`, `config`, `data` and `model`; knows nothing of training. Only `scoring` needs the network.
"""
