"""How a student is pulled towards its teacher: taps and the weighted sum of terms."""
